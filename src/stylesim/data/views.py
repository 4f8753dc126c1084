"""Cut two views of one image: each is a random box of it, scaled, flipped and turned.

Style survives changes of geometry but not of colour, so the two views differ in geometry alone (CSD, arXiv 2404.01292,
section 6). Two options go beyond the paper: a share of the images can be shown without colour, or in other colours.
The published code draws the angle only once and gets 0, so `quarter_turns=False` reproduces it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from stylesim.core.images import MAX_PIXELS, Colour, decode_rgb, jpeg_size
from stylesim.core.images.recolour import Recolouring, recolour


class View(NamedTuple):
    """A box of an image in px, and what follows its scaling: flips, then quarter turns counter-clockwise."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool
    upside_down: bool
    turns: int

    def at(self, scale: int) -> View:
        """Return the same view of the image at 1 / `scale` of its size."""
        edges = (self.top, self.left, self.top + self.height, self.left + self.width)
        top, left, bottom, right = (round(edge / scale) for edge in edges)
        return self._replace(top=top, left=left, height=bottom - top, width=right - left)


class DecodedImage(NamedTuple):
    """A decoded image, and the two views that will be cut from it."""

    pixels: UInt8[Tensor, "h w 3"]
    views: tuple[View, View]
    grey: bool
    """Whether both views lose their colour."""
    colours: tuple[Recolouring, Recolouring] | None = None
    """How each view is recoloured; None leaves its colours."""


@dataclass(frozen=True)
class TwoViews:
    """Cut two random views from an image.

    A box is drawn as torchvision's RandomResizedCrop draws it, scaled with antialiasing, then flipped, then turned.

    Args:
        size: Height and width of a view in px.
        scale: Range of the box's share of the area of the image.
        ratio: Range of the box's width over its height.
        horizontal_flip: Probability of a horizontal flip.
        vertical_flip: Probability of a vertical flip.
        quarter_turns: Whether to turn by a random multiple of 90 degrees.
        interpolation: Interpolation for scaling a box.
        greyscale: Share of the images, in [0, 1], whose two views are both made grey, so that a palette alone does not
            identify a style.
        recolour: Share of the images, in [0, 1], whose two views are recoloured (see `Recolouring`), so that colours
            alone do not identify a style. The paper has no such option.
        recolour_apart: Draw the colours of the two views separately, instead of once for both.
        colour: What to do with embedded colour profiles: `srgb` converts them, `raw` ignores them.
        accept_damaged: Train on what can be decoded of damaged JPEGs and PNGs, instead of skipping them.
        reduced: Decode large JPEGs at a smaller scale (see `draw_of_file`).
        on_device: Cut the views on the device that trains, from whole images; the workers only decode.
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.3
    quarter_turns: bool = True
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    greyscale: float = 0.0
    recolour: float = 0.0
    recolour_apart: bool = False
    colour: Colour = "srgb"
    accept_damaged: bool = False
    reduced: bool = False
    on_device: bool = False

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[Tensor, "2 3 s s"]:
        """Draw and cut the views of a decoded image."""
        return self.cut_both(self._with_views(image, self._draw_both(image.shape[0], image.shape[1], rng), rng))

    def draw_of_file(self, data: bytes, rng: np.random.Generator, *, max_pixels: int = MAX_PIXELS) -> DecodedImage:
        """Decode an image and draw its views; `cut_both` cuts them.

        With `reduced`, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size, as long as both boxes stay at least as large
        as the views. The boxes are the same, up to one pixel of the smaller image; the pixels are slightly softer or
        sharper. With `on_device`, any image is reduced by a whole number in this way, so that batches of large images
        do not fill the memory.

        Args:
            data: An encoded image.
            rng: Random number generator.
            max_pixels: Largest number of pixels that is accepted.

        Raises:
            CorruptSampleError: As `decode_rgb` does.
        """
        decode = partial(
            decode_rgb, data, max_pixels=max_pixels, colour=self.colour, accept_damaged=self.accept_damaged
        )
        size = jpeg_size(data) if self.reduced or self.on_device else None
        if size is None:
            image = decode()
            views = self._draw_both(image.shape[0], image.shape[1], rng)
        else:
            views = self._draw_both(*size, rng)
            image = decode(-(-min(size) * self.size // _shortest_side(views)))
            views = _at(views, round(size[0] / image.shape[0]))
        if self.on_device and (factor := _shortest_side(views) // self.size) > 1:
            image = np.asarray(Image.fromarray(image).reduce(factor))
            views = _at(views, factor)
        return self._with_views(image, views, rng)

    def cut_both(self, image: DecodedImage) -> UInt8[Tensor, "2 3 s s"]:
        """Cut the views of an image, on its device."""
        views = torch.stack([self.cut(image.pixels, view) for view in image.views])
        if image.colours:
            views = torch.stack([recolour(*pair) for pair in zip(views, image.colours, strict=True)])
        return to_greyscale(views) if image.grey else views

    def _draw_both(self, height: int, width: int, rng: np.random.Generator) -> tuple[View, View]:
        return self.draw(height, width, rng), self.draw(height, width, rng)

    def _with_views(
        self, image: UInt8[np.ndarray, "h w 3"], views: tuple[View, View], rng: np.random.Generator
    ) -> DecodedImage:
        # A number is drawn only if it is needed; otherwise all later views of the seed would change.
        grey = bool(self.greyscale and rng.random() < self.greyscale)
        colours = self._draw_colours(rng) if self.recolour and rng.random() < self.recolour else None
        # The pixels of PIL are read-only, about which torch warns.
        return DecodedImage(torch.from_numpy(np.require(image, requirements=["C", "W"])), views, grey, colours)

    def _draw_colours(self, rng: np.random.Generator) -> tuple[Recolouring, Recolouring]:
        first = Recolouring.draw(rng)
        return first, Recolouring.draw(rng) if self.recolour_apart else first

    def draw(self, height: int, width: int, rng: np.random.Generator) -> View:
        """Draw one random view of an image of `height` x `width` px."""
        box = self._box(height, width, rng)
        mirrored, upside_down = rng.random(2) < (self.horizontal_flip, self.vertical_flip)
        return View(*box, bool(mirrored), bool(upside_down), int(rng.integers(4)) if self.quarter_turns else 0)

    def _box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw the top, left, height and width of a box in px."""
        low, high = map(math.log, self.ratio)
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        # The image is too elongated for such a box: take its centre, at the nearest ratio.
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        return (height - h) // 2, (width - w) // 2, h, w

    def cut(self, image: UInt8[Tensor, "h w 3"], view: View) -> UInt8[Tensor, "3 s s"]:
        """Cut a view from the image it was drawn for; CPU and GPU differ by at most two grey levels."""
        box = image[view.top : view.top + view.height, view.left : view.left + view.width].permute(2, 0, 1)[None]
        if image.device.type == "cpu":  # where torch has a vectorised kernel for 8 bits, in channels-last order
            box = box.contiguous(memory_format=torch.channels_last)
            pixels = interpolate(box, (self.size, self.size), mode=self.interpolation, antialias=True)[0]
        else:
            pixels = resize(box, self.size, self.interpolation)
        flips = [axis for axis, flip in ((2, view.mirrored), (1, view.upside_down)) if flip]
        return torch.rot90(pixels.flip(flips) if flips else pixels, view.turns, (1, 2))


def _shortest_side(views: tuple[View, View]) -> int:
    return min(min(view.height, view.width) for view in views)


def _at(views: tuple[View, View], scale: int) -> tuple[View, View]:
    return views[0].at(scale), views[1].at(scale)


def resize(box: UInt8[Tensor, "1 3 h w"], size: int, mode: str) -> UInt8[Tensor, "3 s s"]:
    """Scale a box to `size` x `size` px on a device that has no kernel for 8 bits.

    One axis is scaled after the other, because a CUDA kernel keeps the weights of both in shared memory, which a large
    box would exceed. In between, values are rounded as the 8 bit kernel of a CPU does.
    """
    for shape in ((box.shape[2], size), (size, size)):
        # A bicubic kernel overshoots, hence the clamp.
        box = interpolate(box.float(), shape, mode=mode, antialias=True).round().clamp(0, 255)
    return box[0].to(torch.uint8)


def to_greyscale(views: UInt8[Tensor, "v 3 h w"]) -> UInt8[Tensor, "v 3 h w"]:
    """Put the luma (ITU-R 601, in 1 / 2^16) into all three channels, rounded as by PIL's `convert("L")`."""
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32, device=views.device)[:, None, None]
    luma = ((views.int() * weights).sum(1, keepdim=True) + 2**15) >> 16
    return luma.to(torch.uint8).expand_as(views).contiguous()
