"""Recolour an image at random, so that its palette says little and its lines and textures stay."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class Recolouring(NamedTuple):
    """What happens to the colours of one image; white stays white."""

    hue: float
    """Angle of the rotation in the plane of I and Q, in radians."""
    saturation: float
    """Factor of I and Q."""
    exponents: tuple[float, float, float]
    """Exponent of the ink (1 - value) of each RGB channel."""
    inks: tuple[float, float, float]
    """Ink of a full channel after recolouring, in [0, 1]."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Recolouring:
        """Draw any hue, half to one and a half times the saturation, and a curve for each channel."""
        hue, saturation = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 1.5)
        exponents, inks = np.exp(rng.uniform(-0.7, 0.7, 3)), rng.uniform(0.6, 1.0, 3)
        return cls(float(hue), float(saturation), (*exponents.tolist(),), (*inks.tolist(),))

    @classmethod
    def of_key(cls, key: str) -> Recolouring:
        """Return the recolouring of an image by its key: the same in each run and on each machine."""
        return cls.draw(np.random.default_rng(list(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest())))

    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """Return the matrix that rotates the hue and scales the saturation of RGB columns."""
        cos, sin = self.saturation * math.cos(self.hue), self.saturation * math.sin(self.hue)
        turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        return np.linalg.inv(TO_YIQ) @ turn @ TO_YIQ


def recolour(pixels: UInt8[Tensor, "3 h w"], recolouring: Recolouring) -> UInt8[Tensor, "3 h w"]:
    """Recolour an image, on its device: hue and saturation first, then the curve of each channel.

    Args:
        pixels: RGB in 0..255.
        recolouring: What to do.

    Returns:
        RGB in 0..255. Grey images get colours too, because each channel has a curve of its own.
    """
    device = pixels.device
    matrix = torch.tensor(recolouring.matrix(), dtype=torch.float32, device=device)
    ink = (matrix @ (1 - pixels.flatten(1).float() / 255)).clamp_(0, 1)
    exponents, inks = (torch.tensor(x, device=device)[:, None] for x in (recolouring.exponents, recolouring.inks))
    values = 255 * (1 - ink.pow_(exponents) * inks)
    return values.round_().to(torch.uint8).view_as(pixels)


def change_colours(image: Image.Image, id: str, *, greyscale: bool = False, recoloured: bool = False) -> Image.Image:
    """Return an RGB image as a copy of a retrieval set has it: as it is, recoloured by its key, or grey.

    Args:
        image: An RGB image.
        id: The id of the image. Only its last part counts, because the others depend on how the data are stored.
        greyscale: Remove the colour.
        recoloured: Recolour by the key.
    """
    if recoloured:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        changed = recolour(pixels, Recolouring.of_key(id.rsplit("/", 1)[-1]))
        image = Image.fromarray(changed.permute(1, 2, 0).contiguous().numpy())
    return image.convert("L").convert("RGB") if greyscale else image
