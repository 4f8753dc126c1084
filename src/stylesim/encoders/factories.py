"""The CSD encoders that a config can name as its `_target_`."""

from __future__ import annotations

from collections.abc import Sequence

from stylesim.encoders.base import Provenance
from stylesim.encoders.csd import CSDEncoder, semi_orthogonal, width_of
from stylesim.encoders.lite0 import lite0_network, lite0_preprocessing
from stylesim.encoders.recipe import rebuildable
from stylesim.encoders.stages import StageStatistics
from stylesim.encoders.weights import KNOWN_WORDS, LITE0, require_weights


@rebuildable
def csd_lite0(
    *,
    weights: str = "imagenet",
    stages: Sequence[int] = (0, 1, 2, 3),
    dim: int = 128,
    image_size: int = 96,
    content_head: bool = False,
) -> CSDEncoder:
    """CSD on EfficientNet-Lite0, read at several stages; small enough to train on a CPU.

    `stages` 0 to 4 lie at strides 2, 4, 8, 16, 32 with 16, 24, 40, 112, 320 channels; each channel gives its
    mean and its deviation. `weights` is `imagenet` (from an installed package), `random`, or a checkpoint of
    this encoder.
    """
    require_weights(weights, KNOWN_WORDS["csd_lite0"])
    preprocessing = lite0_preprocessing(image_size)
    backbone = StageStatistics(lite0_network(pretrained=weights == "imagenet"), stages, preprocessing)
    known = weights == "imagenet"
    provenance = Provenance(
        "CSD lite0",
        weights,
        LITE0.sha256 if known else None,
        LITE0.licence if known else None,
        trained_head=False,
    )
    features = width_of(backbone, image_size)
    heads = [semi_orthogonal(features, dim) for _ in range(1 + content_head)]
    return CSDEncoder(backbone, heads[0], heads[1] if content_head else None, preprocessing, provenance)
