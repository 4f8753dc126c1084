"""A stand-in for SSCD, whose weights cannot be had where the tests run.

Its descriptor is a grey thumbnail of 12 x 12 pixels less its mean, so that the similarity of two images is the
correlation of their thumbnails: 1 for a copy, near 0 for unrelated images. Unlike SSCD it sees through neither crops
nor mirroring, so a crop is found only by its tile.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from stylesim.core.errors import WeightsError
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance, StyleEncoder

SIDE = 12


class ThumbnailCorrelation(StyleEncoder):
    def __init__(self) -> None:
        half = (0.5, 0.5, 0.5)
        preprocessing = Preprocessing(48, None, "bilinear", half, half)
        super().__init__(SIDE * SIDE, preprocessing, Provenance("thumbnail correlation (stand-in)", "none"))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        grey = adaptive_avg_pool2d(images.mean(dim=1, keepdim=True), SIDE).flatten(1)
        return normalize(grey - grey.mean(dim=1, keepdim=True) + 1e-6 * torch.arange(SIDE * SIDE), dim=1)


def without_weights() -> StyleEncoder:
    """Fail as an encoder does whose weights cannot be downloaded."""
    raise WeightsError("The weights of the stand-in cannot be downloaded.")
