"""The resize, crop and normalisation that an encoder's images go through."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from stylesim.core.errors import ConfigError, CorruptSampleError
from stylesim.core.images import MAX_PIXELS, Colour


@dataclass(frozen=True)
class Preprocessing:
    """Resize the short side with PIL, crop the centre, and normalise RGB in [0, 1] by `(x - mean) / std`.

    The pixels are equal to those of torchvision's `Resize` and `CenterCrop` on a PIL image.

    Args:
        size: Side of the square crop, in pixels.
        resize: Length to which the short side is resized before the crop, in pixels; None means `size`.
        interpolation: PIL's resampling filter.
        mean: Mean of each RGB channel.
        std: Standard deviation of each RGB channel.
        colour: How an image is opened before the resize: `srgb` converts embedded colour profiles, `raw` ignores them.

    Raises:
        ConfigError: If the interpolation or `colour` is unknown, or the crop is larger than the resized short side.
    """

    size: int
    resize: int | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    colour: Colour = "srgb"

    def __post_init__(self) -> None:
        if self.interpolation.upper() not in Image.Resampling.__members__:
            known = ", ".join(name.lower() for name in Image.Resampling.__members__)
            raise ConfigError(f"interpolation must be one of {known}, got {self.interpolation!r}.")
        if self.colour not in ("srgb", "raw"):
            raise ConfigError(f"colour must be srgb or raw, got {self.colour!r}.")
        if not 1 <= self.size <= self.short_side:
            raise ConfigError(
                f"Cannot crop {self.size} px from a short side of {self.short_side} px: size must be at least 1, and "
                f"resize at least size."
            )

    @property
    def short_side(self) -> int:
        """Length of the short side after the resize, in pixels. A decoder may reduce an image to it."""
        return self.resize or self.size

    def __call__(self, image: Image.Image) -> UInt8[Tensor, "3 s s"]:
        """Resize and crop one RGB image. `normalise` is a separate step because it runs on the device.

        Raises:
            CorruptSampleError: If the image is so narrow that the resized one would have more than MAX_PIXELS pixels.
        """
        width, height = image.size
        short = min(width, height)
        if short != self.short_side:
            width, height = (self.short_side * side // short for side in (width, height))
            if width * height > MAX_PIXELS:  # 1 x 100,000 px would become gigabytes
                raise CorruptSampleError(
                    f"The image of {image.width} x {image.height} pixels is too narrow: with a short side of "
                    f"{self.short_side} px it would have {width * height:,} pixels."
                )
            image = image.resize((width, height), Image.Resampling[self.interpolation.upper()])
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        pixels = np.asarray(image.crop((left, top, left + self.size, top + self.size)))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def resize_tensor(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        """Resize and crop images in [0, 1] on their device, so that a gradient reaches their pixels.

        Resampling is antialiased, as PIL's is. The result differs from that of `__call__` only because PIL rounds to
        8 bits: by about one level.

        Raises:
            ConfigError: If the interpolation is `lanczos`, which torch does not have.
        """
        if self.interpolation == "lanczos":
            raise ConfigError("Images cannot be resized on the device with lanczos: use bicubic.")
        height, width = images.shape[2:]
        short = min(height, width)
        if short != self.short_side:
            size = (self.short_side * height // short, self.short_side * width // short)
            if self.interpolation == "nearest":
                images = interpolate(images, size, mode="nearest-exact")
            else:
                images = interpolate(images, size, mode=self.interpolation, antialias=True).clamp(0, 1)
            height, width = size
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return images[:, :, top : top + self.size, left : left + self.size]

    def normalise(self, images: Shaped[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
        """Return `(x - mean) / std` of images that are uint8 in 0..255 or floats in [0, 1], on their device."""
        images = images if images.is_floating_point() else images.float() / 255
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (images - mean) / std

    def denormalise(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
        """Undo `normalise`: return RGB in [0, 1] as float32."""
        mean, std = (images.new_tensor(values, dtype=torch.float32)[:, None, None] for values in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)

    def digest(self) -> str:
        """Return 16 hex digits of a SHA-256 over all fields, without `colour` if it is `srgb`.

        So encoders of earlier versions, which did not have this field, keep their digests.
        """
        fields = asdict(self)
        if self.colour == "srgb":
            del fields["colour"]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]
