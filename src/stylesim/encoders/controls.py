"""Controls: encoders that learn nothing, which every table needs beside the trained one.

A frozen network shows what training adds, a random one what the architecture alone gives, and a colour
histogram and the ink box how far the palette and the margins betray the style.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stylesim.core.errors import StylesimError
from stylesim.encoders.backbones.lite0 import imagenet_weights, lite0_network, lite0_preprocessing
from stylesim.encoders.backbones.stage_statistics import Palette, PooledFeatures, StageGram, StageStatistics
from stylesim.encoders.base import Preprocessing, Provenance, StyleEncoder
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.weights.locate import LITE0


class FrozenEncoder(StyleEncoder):
    """A network's features, L2-normalised; nothing in it is trainable."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, provenance: Provenance) -> None:
        with torch.no_grad():
            dim = network.eval()(torch.zeros(1, 3, preprocessing.size, preprocessing.size)).shape[1]
        super().__init__(dim, preprocessing, provenance)
        self.network = network.requires_grad_(False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return F.normalize(self.network(images).float(), dim=-1)


class ColourHistogram(StyleEncoder):
    """Joint RGB histogram of `bins` per channel, d = bins^3; the root of each share, so that the length is 1.

    The inner product of two is the Bhattacharyya coefficient of the palettes.
    """

    def __init__(self, bins: int = 8, image_size: int = 96) -> None:
        # Nearest, because an interpolating resize mixes colours that the image does not have.
        super().__init__(
            bins**3,
            Preprocessing(image_size, interpolation="nearest"),
            Provenance(f"colour histogram {bins}^3", "none"),
        )
        self.bins = bins

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        levels = self.preprocessing.unit_range(images).mul(self.bins).long().clamp(0, self.bins - 1).flatten(2)
        cells = (levels[:, 0] * self.bins + levels[:, 1]) * self.bins + levels[:, 2]
        counts = torch.zeros(len(images), self.dim, device=images.device)
        counts.scatter_add_(1, cells, torch.ones_like(cells, dtype=counts.dtype))
        return (counts / cells.shape[1]).sqrt()


class InkBox(StyleEncoder):
    """Where the ink stands, with no look at what it draws: margins, box and share of ink; d = 9.

    Ink is what differs from the top left pixel by more than 1/8 of the range in a channel. Features: the four
    margins, width and height of the box, its area, the share of ink in the image and in the box; all in [0,
    1]. Each is centred on one half, for the angle between all-positive vectors says little.
    """

    THRESHOLD = 1 / 8

    def __init__(self, image_size: int = 96) -> None:
        super().__init__(9, Preprocessing(image_size, interpolation="bilinear"), Provenance("ink box", "none"))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        pixels = self.preprocessing.unit_range(images)
        ink = ((pixels - pixels[..., :1, :1]).abs() > self.THRESHOLD).any(dim=1)
        left, right = _margins(ink.any(dim=1))
        top, bottom = _margins(ink.any(dim=2))
        width, height, share = 1 - left - right, 1 - top - bottom, ink.float().mean(dim=(1, 2))
        area = width * height
        inside = share / area.clamp_min(1e-6)
        numbers = torch.stack([left, right, top, bottom, width, height, area, share, inside], dim=1)
        return F.normalize(numbers - 0.5, dim=-1)


def _margins(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the side `[b n]` before the first and behind the last True; (1, 0) without any."""
    length = occupied.shape[1]
    first = occupied.int().argmax(dim=1) / length
    last = occupied.flip(1).int().argmax(dim=1) / length
    empty = ~occupied.any(dim=1)
    return first.masked_fill(empty, 1.0), last.masked_fill(empty, 0.0)


@rebuildable
def frozen_lite0(*, readout: Literal["stages", "pooled", "gram"] = "stages", image_size: int = 96) -> FrozenEncoder:
    """EfficientNet-Lite0 on ImageNet weights.

    Read-outs: `stages` (means and deviations at strides 2, 4, 8, 16; 384-d), `pooled` (the classifier's
    features; 1280-d), `gram` (Gram matrix at stride 8, signed roots; 820-d).
    """
    provenance = Provenance(f"lite0 {readout}", "imagenet", LITE0.sha256, LITE0.licence)
    return FrozenEncoder(_lite0(readout, image_size, pretrained=True), lite0_preprocessing(image_size), provenance)


@rebuildable
def random_lite0(
    *, readout: Literal["stages", "pooled", "gram"] = "stages", image_size: int = 96, seed: int = 0
) -> FrozenEncoder:
    """The same network with random weights drawn from `seed`: what the architecture alone gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _lite0(readout, image_size, pretrained=False)
    provenance = Provenance(f"random lite0 {readout}, seed {seed}", "random")
    return FrozenEncoder(network, lite0_preprocessing(image_size), provenance)


@rebuildable
def color_histogram(*, bins: int = 8, image_size: int = 96) -> ColourHistogram:
    """A joint RGB histogram, `bins`^3-d: the control that no frozen network beats on clean sets."""
    return ColourHistogram(bins, image_size)


@rebuildable
def palette(*, levels: int = 64, image_size: int = 96) -> FrozenEncoder:
    """How often each level of each channel comes, 3 `levels`-d: finer than the joint histogram, in grey above all."""
    preprocessing = Preprocessing(image_size, interpolation="bicubic")
    return FrozenEncoder(Palette(levels, preprocessing), preprocessing, Provenance(f"palette 3 x {levels}", "none"))


@rebuildable
def ink_box(*, image_size: int = 96) -> InkBox:
    """Margins and share of ink, 9-d: a style that it tells apart is told by the layout alone."""
    return InkBox(image_size)


def _lite0(readout: str, image_size: int, pretrained: bool) -> nn.Module:
    network = lite0_network(imagenet_weights() if pretrained else None)
    if readout == "stages":
        return StageStatistics(network, (0, 1, 2, 3), lite0_preprocessing(image_size))
    if readout == "gram":
        return StageGram(network, 2)
    if readout == "pooled":
        return PooledFeatures(network)
    raise StylesimError(f"readout={readout} is none of stages, pooled, gram.")
