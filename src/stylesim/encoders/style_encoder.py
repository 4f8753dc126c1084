"""The interface of every encoder: images in, L2-normalised descriptors out, with preprocessing and provenance."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from stylesim.core.errors import ConfigError, CorruptSampleError, DataError, WeightsError
from stylesim.core.image_folders import image_files
from stylesim.core.images import EXTENSIONS, Colour, ImageLike, open_image
from stylesim.core.progress import progress as progress_bar
from stylesim.encoders.preprocessing import Preprocessing

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Provenance:
    """Where the weights of an encoder come from, as reports and checkpoints state it.

    Args:
        name: Name of the encoder, as tables show it.
        weights: The value of the `weights` option: a keyword such as "official", or a path.
        digest: SHA-256 of the weight file, 64 hex digits; None without a file.
        licence: Licence of the weights, where it is known.
        trained_head: False while a head still has its initial values. True for an encoder without a head.
        trained_on: The images it was trained on, and what was removed from them; None if that is not known.
    """

    name: str
    weights: str
    digest: str | None = None
    licence: str | None = None
    trained_head: bool = True
    trained_on: str | None = None

    def require_trained_head(self) -> None:
        """Raise a WeightsError if the style head still has its initial values, because its descriptors mean nothing."""
        if not self.trained_head:
            raise WeightsError(
                f"The style head of {self.name} has not been trained, so its descriptors mean nothing. Pass a trained"
                " checkpoint with checkpoint=PATH, or set allow_untrained=true to use it anyway."
            )


class StyleEncoder(nn.Module):
    """Map normalised images `[b 3 h w]` to L2-normalised descriptors `[b d]`. Subclasses implement `forward`.

    `forward` takes images that are already resized and normalised; `encode` takes raw ones. The inner product of two
    descriptors is their cosine similarity. It is not calibrated: what counts as similar depends on the encoder and the
    images, so compare it with the similarities within and between known styles, as `stylesim score` does. The prototype
    of several works is the mean of their descriptors.

    Args:
        dim: Length d of a descriptor.
        preprocessing: How raw images are resized, cropped and normalised.
        provenance: Where the weights come from.

    Attributes:
        config: `_target_` and arguments of the factory that built the encoder, so that a checkpoint can rebuild it;
            None if it was not built by a factory.
    """

    dim: int
    config: dict[str, Any] | None = None

    def __init__(self, dim: int, preprocessing: Preprocessing, provenance: Provenance) -> None:
        super().__init__()
        self.dim = dim
        self.preprocessing = preprocessing
        self.provenance = provenance
        # Follows `.to(...)`, so that an encoder without parameters has a device and a dtype too.
        self.register_buffer("_place", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.get_buffer("_place").device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, and of the images that `forward` takes."""
        return self.get_buffer("_place").dtype

    def use_colour(self, colour: Colour | None) -> None:
        """Choose what to do with embedded colour profiles (see `Preprocessing`); None changes nothing."""
        if colour is not None:
            self.preprocessing = replace(self.preprocessing, colour=colour)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the L2-normalised descriptors of normalised images."""
        raise NotImplementedError

    # Not inference_mode: under it, bf16 autocast on a CPU is about ten times slower.
    @torch.no_grad()
    def encode(
        self,
        images: Iterable[ImageLike] | str | Path,
        batch_size: int = 64,
        progress: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
        accept_damaged: bool = False,
    ) -> Float[Tensor, "n d"]:
        """Embed raw images of any size and mode.

        The encoder runs in evaluation mode; afterwards each module returns to its previous mode.

        Args:
            images: A folder, whose images (subfolders included) are taken in the order of their paths; or an iterable
                of paths, encoded bytes, open files, PIL images, arrays `[h w 3]` or tensors `[3 h w]` (uint8, or floats
                in [0, 1]). An iterable is consumed batch by batch.
            batch_size: Number of images per forward pass.
            progress: Show a progress bar.
            on_error: What to do with an image that cannot be read: raise, or skip it. Skipped images have no row in
                the result; a warning names them.
            accept_damaged: Embed what can be decoded of damaged JPEGs and PNGs.

        Returns:
            Descriptors in the order of the images, float32 on the CPU.

        Raises:
            CorruptSampleError: If an image cannot be read and `on_error` is "raise".
            ConfigError: If the folder does not exist, a single image is passed instead of a list, or an option has an
                invalid value.
            DataError: If the folder contains no image.
        """
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error must be raise or skip, got {on_error!r}.")
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}.")
        if isinstance(images, str | Path) and not Path(images).expanduser().exists():
            raise ConfigError(f"There is no file or folder {images}.")
        if isinstance(images, str | Path) and (folder := Path(images).expanduser()).is_dir():
            images = image_files(folder)
            if not images:
                raise DataError(f"There is no image in {folder.absolute()}: looked for {', '.join(EXTENSIONS)}.")
        if isinstance(images, str | bytes | Path | Image.Image) or (
            hasattr(images, "read") or getattr(images, "ndim", 4) in (2, 3)
        ):
            raise ConfigError("encode() takes a folder or several images. Put a single image into a list.")
        if not isinstance(images, Iterable):
            raise ConfigError(f"encode() takes a folder or several images, got {type(images).__name__}.")
        total = len(images) if isinstance(images, Sized) else None
        modes = {module: module.training for module in self.modules()}
        self.eval()
        batches: list[Tensor] = []
        skipped: list[str] = []
        try:
            with progress_bar("embedding", total, show=progress) as advance:
                opened = self._open_all(images, skipped if on_error == "skip" else None, accept_damaged, advance)
                while pixels := list(islice(opened, batch_size)):
                    batches.append(self._encode_batch(torch.stack(pixels)))
        finally:
            for module, mode in modes.items():
                module.training = mode
        if skipped:
            logger.warning("Skipped %d images that cannot be read:\n%s", len(skipped), "\n".join(skipped))
        return torch.cat(batches) if batches else torch.empty(0, self.dim)

    def _open_all(
        self,
        images: Iterable[ImageLike],
        skipped: list[str] | None,
        accept_damaged: bool,
        advance: Callable[[int], None],
    ) -> Iterator[UInt8[Tensor, "3 s s"]]:
        """Yield the images, resized and cropped. Unreadable ones are added to `skipped`; if that is None, raise."""
        for index, image in enumerate(images):
            try:
                opened = open_image(image, colour=self.preprocessing.colour, accept_damaged=accept_damaged)
                yield self.preprocessing(opened)
            except CorruptSampleError as error:
                if skipped is None:
                    raise
                skipped.append(str(error) if isinstance(image, str | Path) else f"image {index}: {error}")
            advance(1)

    def _encode_batch(self, pixels: UInt8[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        images = self.preprocessing.normalise(pixels.to(self.device)).to(self.dtype)
        # Convolutions on a CPU are nearly twice as fast in this memory format.
        return self(images.contiguous(memory_format=torch.channels_last)).float().cpu()

    def digest(self) -> str:
        """Return 16 hex digits of a SHA-256 over the name, the preprocessing and the state dict, sorted by key.

        The same weights give the same digest, whatever file they came from. Two encoders with the same digest give
        the same descriptors.
        """
        sha = hashlib.sha256(f"{self.provenance.name} {self.preprocessing.digest()}".encode())
        for name, value in sorted(self.state_dict().items()):
            sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return sha.hexdigest()[:16]
