"""Two views of one image: where they are cut, how they are turned, and the cutting itself.

Style survives geometry and not photometry, so the two views differ in geometry alone (CSD, arXiv 2404.01292,
section 6); a share of the images may be shown without colour, in both views. The published code draws its angle
once and gets 0: `quarter_turns=False` is its behaviour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from stylesim.core.images import MAX_PIXELS, decode_rgb, jpeg_size


class View(NamedTuple):
    """A box of an image in px, and what is done to it once scaled: flips, then quarter turns to the left."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool
    upside_down: bool
    turns: int

    def at(self, scale: int) -> View:
        """The same view of the picture at 1 / `scale` of its size."""
        edges = (self.top, self.left, self.top + self.height, self.left + self.width)
        top, left, bottom, right = (round(edge / scale) for edge in edges)
        return self._replace(top=top, left=left, height=bottom - top, width=right - left)


class Drawn(NamedTuple):
    """A decoded image, and what its two views will show of it."""

    pixels: UInt8[Tensor, "h w 3"]
    views: tuple[View, View]
    grey: bool
    """Whether both lose their colour."""


@dataclass(frozen=True)
class TwoViews:
    """Two random views of an image, each `size` x `size` px.

    A box of `scale` of the area and `ratio` of width to height (as torchvision's RandomResizedCrop draws
    it) is scaled with antialiasing, then flipped, then turned by a random multiple of 90 degrees if
    `quarter_turns`. `greyscale`: share of the images, in [0, 1], of which both views lose their colour, so
    that a palette alone does not tell a style. `reduced`: decode large JPEGs at a smaller scale, see `draw_of_file`.
    `on_device`: cut them on the device that trains, from whole images; the workers only decode.
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.3
    quarter_turns: bool = True
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    greyscale: float = 0.0
    reduced: bool = False
    on_device: bool = False

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[Tensor, "2 3 s s"]:
        return self.cut_both(self._drawn(image, self._draw_both(image.shape[0], image.shape[1], rng), rng))

    def draw_of_file(self, data: bytes, rng: np.random.Generator, *, max_pixels: int = MAX_PIXELS) -> Drawn:
        """What the views of an encoded image will be; `cut_both` makes them.

        With `reduced` a JPEG is decoded at 1/2, 1/4 or 1/8 of its size, as long as both boxes are there at least as
        large as the views. The boxes are the same, to a pixel of the smaller picture; the pixels are a little
        softer or sharper. With `on_device` any picture is made smaller so, by whole numbers, lest whole batches of
        large ones stand in memory. Raises `StylesimError` as `decode_rgb` does.
        """
        size = jpeg_size(data) if self.reduced or self.on_device else None
        if size is None:
            image = decode_rgb(data, max_pixels=max_pixels)
            views = self._draw_both(image.shape[0], image.shape[1], rng)
        else:
            views = self._draw_both(*size, rng)
            image = decode_rgb(data, -(-min(size) * self.size // _shortest(views)), max_pixels=max_pixels)
            views = _at(views, round(size[0] / image.shape[0]))
        if self.on_device and (spare := _shortest(views) // self.size) > 1:
            image = np.asarray(Image.fromarray(image).reduce(spare))
            views = _at(views, spare)
        return self._drawn(image, views, rng)

    def cut_both(self, drawn: Drawn) -> UInt8[Tensor, "2 3 s s"]:
        """The views of an image, on its device."""
        views = torch.stack([self.cut(drawn.pixels, view) for view in drawn.views])
        return without_colour(views) if drawn.grey else views

    def _draw_both(self, height: int, width: int, rng: np.random.Generator) -> tuple[View, View]:
        return self.draw(height, width, rng), self.draw(height, width, rng)

    def _drawn(self, image: UInt8[np.ndarray, "h w 3"], views: tuple[View, View], rng: np.random.Generator) -> Drawn:
        # No draw where none is needed: the other views of a seed stay as they are.
        grey = bool(self.greyscale and rng.random() < self.greyscale)
        # PIL's pixels are read-only, of which torch warns.
        return Drawn(torch.from_numpy(np.require(image, requirements=["C", "W"])), views, grey)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> View:
        """One random view of an image of `height` x `width` px."""
        box = self._box(height, width, rng)
        mirrored, upside_down = rng.random(2) < (self.horizontal_flip, self.vertical_flip)
        return View(*box, bool(mirrored), bool(upside_down), int(rng.integers(4)) if self.quarter_turns else 0)

    def _box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        low, high = map(math.log, self.ratio)
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        # An image too long for any such box: the middle of it, at the nearest ratio.
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        return (height - h) // 2, (width - w) // 2, h, w

    def cut(self, image: UInt8[Tensor, "h w 3"], view: View) -> UInt8[Tensor, "3 s s"]:
        """This view of `image`, to which it must belong; on a GPU to a grey level what it is on a CPU."""
        box = image[view.top : view.top + view.height, view.left : view.left + view.width].permute(2, 0, 1)[None]
        if image.device.type == "cpu":  # a vectorised 8 bit kernel, in channels-last order
            box = box.contiguous(memory_format=torch.channels_last)
            pixels = interpolate(box, (self.size, self.size), mode=self.interpolation, antialias=True)[0]
        else:
            pixels = scaled(box, self.size, self.interpolation)
        flips = [axis for axis, flip in ((2, view.mirrored), (1, view.upside_down)) if flip]
        return torch.rot90(pixels.flip(flips) if flips else pixels, view.turns, (1, 2))


def _shortest(views: tuple[View, View]) -> int:
    return min(min(view.height, view.width) for view in views)


def _at(views: tuple[View, View], scale: int) -> tuple[View, View]:
    return views[0].at(scale), views[1].at(scale)


def scaled(box: UInt8[Tensor, "1 3 h w"], size: int, mode: str) -> UInt8[Tensor, "3 s s"]:
    """To `size` x `size` px where there is no kernel for 8 bits: along one axis, then the other.

    Rounded in between, as the 8 bit kernel of a CPU does; and one axis at a time, because a CUDA kernel keeps the
    weights of both in shared memory, which a large box would overrun.
    """
    for shape in ((box.shape[2], size), (size, size)):
        # A bicubic kernel overshoots.
        box = interpolate(box.float(), shape, mode=mode, antialias=True).round().clamp(0, 255)
    return box[0].to(torch.uint8)


def without_colour(views: UInt8[Tensor, "v 3 h w"]) -> UInt8[Tensor, "v 3 h w"]:
    """Luma (ITU-R 601, in 1 / 2^16) in all three channels, as PIL's `convert("L")` rounds it."""
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32, device=views.device)[:, None, None]
    luma = ((views.int() * weights).sum(1, keepdim=True) + 2**15) >> 16
    return luma.to(torch.uint8).expand_as(views).contiguous()
