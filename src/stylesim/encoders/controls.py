"""Controls: encoders without training on style, which every comparison needs beside a trained one.

A frozen network shows what training adds, a random network what the architecture alone gives, and the colour
histogram, the palette and the ink box how much colours and layout alone reveal about the style.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from stylesim.core.errors import ConfigError
from stylesim.encoders.backbones.clip_tower import clip_preprocessing, clip_tower
from stylesim.encoders.backbones.lite0 import imagenet_weights, lite0_network, lite0_preprocessing
from stylesim.encoders.backbones.palette import Palette
from stylesim.encoders.backbones.stage_statistics import PooledFeatures, StageGram, StageStatistics
from stylesim.encoders.backbones.vit_shapes import check_image_size, vit_shape
from stylesim.encoders.frozen_encoder import FrozenEncoder
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.style_encoder import Provenance, StyleEncoder
from stylesim.encoders.weights.published import LITE0


class ColourHistogram(StyleEncoder):
    """Square roots of a joint RGB histogram, d = bins^3, so that descriptors have length 1.

    The inner product of two descriptors is the Bhattacharyya coefficient of the histograms.

    Args:
        bins: Number of bins per channel.
        image_size: Image size in pixels.
    """

    def __init__(self, bins: int = 8, image_size: int = 96) -> None:
        # Nearest neighbour, because interpolation creates colours that the image does not contain.
        super().__init__(
            bins**3,
            Preprocessing(image_size, interpolation="nearest"),
            Provenance(f"colour histogram {bins}^3", "none"),
        )
        self.bins = bins

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the square roots of the histograms of normalised images."""
        levels = self.preprocessing.denormalise(images).mul(self.bins).long().clamp(0, self.bins - 1).flatten(2)
        cells = (levels[:, 0] * self.bins + levels[:, 1]) * self.bins + levels[:, 2]
        counts = torch.zeros(len(images), self.dim, device=images.device)
        counts.scatter_add_(1, cells, torch.ones_like(cells, dtype=counts.dtype))
        return (counts / cells.shape[1]).sqrt()


class InkBox(StyleEncoder):
    """Position and amount of ink, whatever it depicts; d = 9.

    A pixel is ink if it differs from the top left pixel by more than 1/8 of the range in any channel. Features: the
    four margins, width and height of the bounding box, its area, and the share of ink in the image and in the box, all
    in [0, 1]. One half is subtracted from each, because the cosine of vectors with only positive entries varies little.
    """

    THRESHOLD = 1 / 8

    def __init__(self, image_size: int = 96) -> None:
        super().__init__(9, Preprocessing(image_size, interpolation="bilinear"), Provenance("ink box", "none"))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the nine features of normalised images, centred and L2-normalised."""
        pixels = self.preprocessing.denormalise(images)
        ink = ((pixels - pixels[..., :1, :1]).abs() > self.THRESHOLD).any(dim=1)
        left, right = _margins(ink.any(dim=1))
        top, bottom = _margins(ink.any(dim=2))
        width, height, share = 1 - left - right, 1 - top - bottom, ink.float().mean(dim=(1, 2))
        area = width * height
        inside = share / area.clamp_min(1e-6)
        features = torch.stack([left, right, top, bottom, width, height, area, share, inside], dim=1)
        return F.normalize(features - 0.5, dim=-1)


def _margins(occupied: Bool[Tensor, "b n"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Return which shares of the n positions lie before the first and after the last True; (1, 0) if there is none."""
    length = occupied.shape[1]
    first = occupied.int().argmax(dim=1) / length
    last = occupied.flip(1).int().argmax(dim=1) / length
    empty = ~occupied.any(dim=1)
    return first.masked_fill(empty, 1.0), last.masked_fill(empty, 0.0)


@rebuildable
def frozen_lite0(*, readout: Literal["stages", "pooled", "gram"] = "stages", image_size: int = 96) -> FrozenEncoder:
    """Build EfficientNet-Lite0 with ImageNet weights.

    Args:
        readout: `stages` (channel means and standard deviations at strides 2, 4, 8, 16; 384-d), `pooled` (the features
            before the classifier; 1280-d), or `gram` (signed square roots of the Gram matrix at stride 8; 820-d).
        image_size: Image size in pixels.

    Raises:
        ConfigError: If the readout is unknown.
        WeightsError: If the package with the weights is not installed.
    """
    provenance = Provenance(f"lite0 {readout}", "imagenet", LITE0.sha256, LITE0.licence)
    return FrozenEncoder(_lite0(readout, image_size, pretrained=True), lite0_preprocessing(image_size), provenance)


@rebuildable
def random_lite0(
    *, readout: Literal["stages", "pooled", "gram"] = "stages", image_size: int = 96, seed: int = 0
) -> FrozenEncoder:
    """Build EfficientNet-Lite0 with random weights drawn from `seed`; the other arguments as for `frozen_lite0`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _lite0(readout, image_size, pretrained=False)
    provenance = Provenance(f"random lite0 {readout}, seed {seed}", "random")
    return FrozenEncoder(network, lite0_preprocessing(image_size), provenance)


@rebuildable
def random_vit(
    *, architecture: str | Mapping[str, int] = "ViT-B-16", image_size: int | None = None, seed: int = 0
) -> FrozenEncoder:
    """Build CLIP's image encoder with random weights.

    Args:
        architecture: `ViT-B-32`, `ViT-B-16`, `ViT-L-14`, or the sizes of a `ViTShape`.
        image_size: Image size in pixels; None means the native size.
        seed: Seed of the weights. The global random state is not changed.

    Raises:
        ConfigError: If the architecture is unknown, or the image size is not a multiple of the patch size.
    """
    shape = vit_shape(architecture)
    size = image_size or shape.image
    check_image_size(shape, size)
    tower: Any
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower, proj = clip_tower(shape, size)
    tower.proj = nn.Parameter(proj)
    return FrozenEncoder(tower, clip_preprocessing(size), Provenance(f"random {shape.name}, seed {seed}", "random"))


@rebuildable
def color_histogram(*, bins: int = 8, image_size: int = 96) -> ColourHistogram:
    """Build a joint RGB histogram, `bins`^3-d: the control that no frozen network beats on StyleCross."""
    return ColourHistogram(bins, image_size)


@rebuildable
def palette(*, levels: int = 64, image_size: int = 96) -> FrozenEncoder:
    """Build one histogram per colour channel, 3 x `levels`-d: finer than the joint histogram, above all for greys."""
    preprocessing = Preprocessing(image_size, interpolation="bicubic")
    return FrozenEncoder(Palette(levels, preprocessing), preprocessing, Provenance(f"palette 3 x {levels}", "none"))


@rebuildable
def ink_box(*, image_size: int = 96) -> InkBox:
    """Build the descriptor of margins and amount of ink, 9-d. Styles that it separates differ in layout."""
    return InkBox(image_size)


def _lite0(readout: str, image_size: int, pretrained: bool) -> nn.Module:
    network = lite0_network(imagenet_weights() if pretrained else None)
    if readout == "stages":
        return StageStatistics(network, (0, 1, 2, 3), lite0_preprocessing(image_size))
    if readout == "gram":
        return StageGram(network, 2)
    if readout == "pooled":
        return PooledFeatures(network)
    raise ConfigError(f"readout must be one of stages, pooled, gram, got {readout!r}.")
