"""What every encoder is: images in, L2-normalised descriptors out, with its preprocessing and origin."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from PIL import Image
from torch import Tensor, nn

from stylesim.core.errors import StylesimError
from stylesim.core.image_folders import image_files
from stylesim.core.images import EXTENSIONS, MAX_PIXELS, ImageLike, open_image
from stylesim.core.progress import progress as progress_bar


@dataclass(frozen=True)
class Preprocessing:
    """Short side to `resize` px (by PIL), centre crop of `size` px, `(x - mean) / std` on RGB in [0, 1].

    Without `resize` the short side goes straight to `size`. Pixels equal torchvision's Resize and CenterCrop
    on PIL.
    """

    size: int
    resize: int | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if self.interpolation.upper() not in Image.Resampling.__members__:
            raise StylesimError(f"There is no interpolation {self.interpolation!r}: take bicubic or bilinear.")
        if self.size < 1 or self.short_side < self.size:
            raise StylesimError(
                f"Preprocessing cannot crop {self.size} px from a short side of {self.short_side} px: "
                f"size is at least 1 and resize at least size."
            )

    @property
    def short_side(self) -> int:
        """Length in px that the short side is resized to; a decoder may stop at it."""
        return self.resize or self.size

    def __call__(self, image: Image.Image) -> UInt8[Tensor, "3 s s"]:
        """Resize and crop an RGB image (`normalise` is left to the device); StylesimError for a strip."""
        width, height = image.size
        short = min(width, height)
        if short != self.short_side:
            width, height = (self.short_side * side // short for side in (width, height))
            if width * height > MAX_PIXELS:  # a strip of 1 x 100,000 px would be blown up to gigabytes
                raise StylesimError(f"The image is too narrow a strip, {image.width} x {image.height} pixels.")
            image = image.resize((width, height), Image.Resampling[self.interpolation.upper()])
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        pixels = np.asarray(image.crop((left, top, left + self.size, top + self.size)))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def normalise(self, images: Shaped[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
        """`(x - mean) / std` on the images' device, for uint8 in 0..255 or floats in [0, 1]."""
        images = images if images.is_floating_point() else images.float() / 255
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (images - mean) / std

    def unit_range(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
        """What `normalise` was given: RGB in [0, 1], in float32."""
        mean, std = (images.new_tensor(values, dtype=torch.float32)[:, None, None] for values in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)

    def digest(self) -> str:
        """16 hex digits over every field."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Provenance:
    """Where an encoder's numbers come from.

    `trained_head` is False while a head stands on its initial values; an encoder without a head says True.
    `trained_on`: the images it has learnt from, and what they were cleared of; None where that is not known.
    """

    name: str
    weights: str
    digest: str | None = None
    licence: str | None = None
    trained_head: bool = True
    trained_on: str | None = None

    def require_trained_head(self) -> None:
        """StylesimError where the head stands on its initial values, so that its descriptors say nothing."""
        if not self.trained_head:
            raise StylesimError(
                f"The style head of {self.name} has never been trained, so its descriptors say nothing. Give a trained"
                " one with checkpoint=PATH, or ask for this all the same with allow_untrained=true."
            )


class StyleEncoder(nn.Module):
    """Normalised images `[b 3 h w]` to L2-normalised descriptors `[b d]`; children implement `forward`.

    `config` is the `_target_` with its arguments that builds this encoder again (the factories fill it in).
    """

    dim: int
    config: dict[str, Any] | None = None

    def __init__(self, dim: int, preprocessing: Preprocessing, provenance: Provenance) -> None:
        super().__init__()
        self.dim = dim
        self.preprocessing = preprocessing
        self.provenance = provenance
        # Knows where the encoder lives, also when it has no parameters.
        self.register_buffer("_place", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.get_buffer("_place").device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of the images that `forward` takes."""
        return self.get_buffer("_place").dtype

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        raise NotImplementedError

    # Not inference_mode: under it, bf16 autocast on a CPU is about ten times slower.
    @torch.no_grad()
    def encode(
        self,
        images: Iterable[ImageLike] | str | Path,
        batch_size: int = 64,
        progress: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> Float[Tensor, "n d"]:
        """Describe raw images of any size and mode, in their order, in evaluation mode; float32 on the CPU.

        `images` is a folder, whose images (those of its sub-folders too) are taken in the order of their paths, or
        any iterable of paths, encoded bytes, PIL images, arrays `[h w 3]` or tensors `[3 h w]` (uint8, or floats
        in [0, 1]), consumed batch by batch. An image that cannot be opened raises StylesimError, or with "skip" is
        left out of the rows and named in a warning.
        """
        if on_error not in ("raise", "skip"):
            raise StylesimError(f"on_error={on_error} is none of raise, skip.")
        if isinstance(images, str | Path) and Path(images).is_dir():
            images = images_in(Path(images))
        if isinstance(images, str | bytes | Path | Image.Image) or getattr(images, "ndim", 4) == 3:
            raise StylesimError("encode() takes a folder or several images: put the single one into a list.")
        total = len(images) if isinstance(images, Sized) else None
        modes = {module: module.training for module in self.modules()}
        self.eval()
        batches: list[Tensor] = []
        skipped: list[str] = []
        try:
            with progress_bar("describing", total, show=progress) as advance:
                opened = self._opened(images, skipped if on_error == "skip" else None, advance)
                while pixels := list(islice(opened, batch_size)):
                    batches.append(self._encode_batch(torch.stack(pixels)))
        finally:
            for module, mode in modes.items():
                module.training = mode
        if skipped:
            warnings.warn(f"{len(skipped)} images were left out:\n" + "\n".join(skipped), stacklevel=3)
        return torch.cat(batches) if batches else torch.empty(0, self.dim)

    def _opened(
        self, images: Iterable[ImageLike], skipped: list[str] | None, advance: Callable[[int], None]
    ) -> Iterator[UInt8[Tensor, "3 s s"]]:
        """The images, resized and cropped; what cannot be opened is noted in `skipped`, and raises without it."""
        for place, image in enumerate(images):
            try:
                yield self.preprocessing(open_image(image))
            except StylesimError as error:
                if skipped is None:
                    raise
                skipped.append(str(error) if isinstance(image, str | Path) else f"image {place}: {error}")
            advance(1)

    def _encode_batch(self, pixels: UInt8[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        images = self.preprocessing.normalise(pixels.to(self.device))
        return self(images.to(self.dtype)).float().cpu()

    def digest(self) -> str:
        """16 hex digits of a sha256 over the name, the preprocessing and the state dict sorted by name.

        The same weights give the same digest, whatever file they came from; two files with one digest
        describe alike.
        """
        sha = hashlib.sha256(f"{self.provenance.name} {self.preprocessing.digest()}".encode())
        for name, value in sorted(self.state_dict().items()):
            sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return sha.hexdigest()[:16]


def pick_device() -> torch.device:
    """CUDA, MPS or CPU: the first there is."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def images_in(folder: Path) -> list[Path]:
    """Every image file below a folder, hidden ones left out, ordered by path; StylesimError where there is none."""
    if not (files := image_files(folder)):
        raise StylesimError(f"There is no image in {folder.absolute()}: looked for {', '.join(EXTENSIONS)}.")
    return files
