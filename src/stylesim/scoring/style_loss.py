"""The style loss: how far images are in style from reference works, differentiable down to the pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from stylesim.core.errors import ConfigError, DataError
from stylesim.core.image_folders import image_files
from stylesim.core.images import ImageLike, open_image
from stylesim.encoders.backbones.stage_statistics import Stages, gram, statistics
from stylesim.encoders.load import load_encoder
from stylesim.encoders.style_encoder import StyleEncoder
from stylesim.retrieval.descriptor_set import DescriptorSet

Form: TypeAlias = Literal["cosine", "csls", "gram", "statistics"]
Reference: TypeAlias = "ImageLike | Iterable[ImageLike] | DescriptorSet | Float[Tensor, '*n d']"
"""A folder, an image, several images, descriptors, or a prototype."""

FORMS = ("cosine", "csls", "gram", "statistics")
BATCH = 16
"""Number of reference works that are described at once."""


class StyleLoss(nn.Module):
    """The style loss of images against reference works that are described once.

    Forms, for the features x of an image and r of the reference:

    - `cosine`: |1 - cos(x, r)| of the style descriptors (RB-Modulation, Rout et al. 2024). Against several works this
      is 1 - gss.
    - `csls`: near(x) + near(r) - 2 cos(x, r), where near is the mean cosine to the k nearest works of `pool`. Moving
      towards the works of others costs something, so images do not end up near a hub.
    - `gram`: the squared distance of Gram matrices, relative to the squared norm of the reference's, averaged over the
      encoder's stages (Gatys et al. 2016).
    - `statistics`: the same for means and standard deviations of the channels (Huang and Belongie 2017).

    Args:
        reference: A folder, an image, several images, descriptors `[n d]`, a prototype `[d]`, or a DescriptorSet. Of
            several works, the weighted mean of the features counts. For `gram` and `statistics`, images are needed.
        encoder: An encoder, or what `stylesim.load_encoder` takes. It is put into evaluation mode, and frozen.
        form: One of the forms.
        weights: Weights of the works, scaled to the sum 1; None weights all works equally.
        pool: Works of others for `csls`, given in the same ways as `reference`.
        k: Number of nearest works of `pool`.

    Raises:
        ConfigError: If the form is unknown, or its arguments or its encoder do not fit it.
        CorruptSampleError: If a reference work cannot be read.
        DataError: If there is no reference work, or the number of weights is another one.
        WeightsError: If the encoder cannot be loaded.

    Example:
        >>> loss = StyleLoss("works/", "csd_vitl")
        >>> loss(decoder(latents)).mean().backward()
    """

    target: Tensor
    pool: Tensor
    near: Tensor

    def __init__(
        self,
        reference: Reference,
        encoder: str | Path | StyleEncoder = "csd_vitl",
        form: Form = "cosine",
        *,
        weights: Sequence[float] | None = None,
        pool: Reference | None = None,
        k: int = 10,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ConfigError(f"The form of a style loss must be one of {', '.join(FORMS)}, got {form!r}.")
        if (form == "csls") != (pool is not None):
            raise ConfigError(f"pool= holds works of others and belongs to form='csls', got form={form!r}.")
        if not isinstance(encoder, StyleEncoder):
            encoder = load_encoder(encoder)
        self.form, self.k = form, k
        self.encoder = encoder.eval().requires_grad_(False)
        works = self._describe(reference)
        shares = _shares(weights, len(works)).to(works)
        self.register_buffer("target", shares @ works)
        others = self._describe(pool) if pool is not None else works[:0]
        self.register_buffer("pool", others)
        self.register_buffer("near", shares @ self._near(works) if form == "csls" else works.new_zeros(()))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Return the loss of each image.

        Args:
            images: In [0, 1], of any size, on the device of the encoder; resized and cropped as `encode` does it.

        Raises:
            DataError: If the shape or the values are others.
        """
        _check_images(images)
        # Not every device resamples half precision.
        pixels = self.encoder.preprocessing.resize_tensor(images.to(torch.promote_types(images.dtype, torch.float32)))
        features = self._features(pixels)
        if self.form == "cosine":
            return (1 - features @ self.target).abs()
        if self.form == "csls":
            return self._near(features) + self.near - 2 * features @ self.target
        return torch.stack(
            [
                (own - other).square().sum(1) / other.square().sum().clamp_min(1e-12)
                for own, other in zip(features.split(self._sizes, 1), self.target.split(self._sizes), strict=True)
            ]
        ).mean(0)

    def _features(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b f"]:
        """Return what the form compares, in float32 or more, of resized images in [0, 1]."""
        inputs = self.encoder.preprocessing.normalise(pixels.to(self.encoder.dtype))
        if self.form in ("cosine", "csls"):
            features = self.encoder(inputs)
            return features if features.dtype == torch.float64 else features.float()
        maps = self._stages().maps(inputs)
        parts = [gram(one) if self.form == "gram" else torch.cat(statistics(one), dim=1) for one in maps]
        self._sizes = [part.shape[1] for part in parts]
        return torch.cat(parts, dim=1)

    def _stages(self) -> Stages:
        for module in self.encoder.modules():
            if isinstance(module, Stages):
                return module
        raise ConfigError(
            f"form={self.form!r} reads the feature maps of an encoder with stages, such as csd_lite0 or frozen_lite0;"
            f" {self.encoder.provenance.name} has none. Use form='cosine'."
        )

    def _near(self, features: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        cosines = features @ self.pool.to(features).T
        return cosines.topk(min(self.k, cosines.shape[1]), dim=1).values.mean(1)

    @torch.no_grad()
    def _describe(self, works: Reference) -> Float[Tensor, "n f"]:
        """Return the features of reference works, which may already be descriptors."""
        if isinstance(works, DescriptorSet):
            works = torch.from_numpy(np.array(works.descriptors))
        if isinstance(works, np.ndarray | Tensor) and works.ndim <= 2:
            return self._check_descriptors(torch.as_tensor(works))
        opened = self._open(works)
        batches = []
        while pixels := list(islice(opened, BATCH)):
            batches.append(self._features(torch.stack(pixels).to(self.encoder.device) / 255))
        if not batches:
            raise DataError("A style loss needs at least one reference work, got none.")
        return torch.cat(batches)

    def _open(self, works: ImageLike | Iterable[ImageLike]) -> Iterator[Tensor]:
        """Yield reference works, resized and cropped."""
        if isinstance(works, str | Path) and Path(works).expanduser().is_dir():
            works = image_files(Path(works).expanduser())
        elif isinstance(works, str | bytes | Path) or not isinstance(works, Iterable) or getattr(works, "ndim", 4) == 3:
            works = [works]  # type: ignore[list-item]
        preprocessing = self.encoder.preprocessing
        for work in cast("Iterable[ImageLike]", works):
            yield preprocessing(open_image(work, colour=preprocessing.colour))

    def _check_descriptors(self, descriptors: Tensor) -> Float[Tensor, "n d"]:
        descriptors = torch.atleast_2d(descriptors)
        if self.form in ("gram", "statistics"):
            raise ConfigError(f"form={self.form!r} compares feature maps: pass reference images, not descriptors.")
        if descriptors.shape[1] != self.encoder.dim or not len(descriptors):
            raise DataError(
                f"Descriptors of {self.encoder.provenance.name} have the shape [n {self.encoder.dim}], got"
                f" {list(descriptors.shape)}."
            )
        dtype = torch.promote_types(self.encoder.dtype, torch.float32)
        return descriptors.to(self.encoder.device, dtype)


def style_loss(
    images: Float[Tensor, "b 3 h w"],
    reference: Reference,
    encoder: str | Path | StyleEncoder = "csd_vitl",
    form: Form = "cosine",
    *,
    weights: Sequence[float] | None = None,
    pool: Reference | None = None,
    k: int = 10,
) -> Float[Tensor, ""]:
    """Return the mean style loss of images against reference works; the gradient reaches the pixels.

    In a training loop, pass an encoder that is loaded and a descriptor, or make a `StyleLoss` once: else each call
    loads the encoder and describes the works again.

    Args:
        images: In [0, 1], of any size, on the device of the encoder.
        reference: As for `StyleLoss`, as are the other arguments.
        encoder: An encoder, or what `stylesim.load_encoder` takes.
        form: `cosine`, `csls`, `gram` or `statistics`.
        weights: Weights of the works.
        pool: Works of others for `csls`.
        k: Number of nearest works of `pool`.

    Example:
        >>> encoder = stylesim.load_encoder("csd_vitl")
        >>> prototype = encoder.encode("works/").mean(0)
        >>> stylesim.style_loss(decoder(latents), prototype, encoder).backward()
    """
    return StyleLoss(reference, encoder, form, weights=weights, pool=pool, k=k)(images).mean()


def _shares(weights: Sequence[float] | None, works: int) -> Float[Tensor, " n"]:
    """Return the weights, or equal ones, scaled to the sum 1."""
    shares = torch.ones(works) if weights is None else torch.as_tensor(weights, dtype=torch.float32)
    if shares.shape != (works,) or not (shares >= 0).all() or not shares.sum() > 0:
        raise DataError(
            f"weights must be {works} numbers of at least 0, one for each reference work, not all of them 0, got"
            f" {weights}."
        )
    return shares / shares.sum()


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise DataError(f"A style loss takes floats [b 3 h w] in [0, 1], got {images.dtype} {list(images.shape)}.")
    # Looking at the values of compiled or CUDA tensors would stop the program until they are computed.
    if images.device.type == "cpu" and not torch.compiler.is_compiling() and len(images):
        low, high = images.detach().aminmax()
        if low < -0.5 or high > 1.5:
            raise DataError(
                f"A style loss takes images in [0, 1], got values from {low:g} to {high:g}: for images in [-1, 1] pass"
                " images / 2 + 0.5."
            )
