"""SSCD: a ResNet-50 that learnt to recognise copies (Pizzi et al. 2022), here as a baseline for style."""

from __future__ import annotations

import re
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from stylesim.core.errors import StylesimError
from stylesim.encoders.base import Preprocessing
from stylesim.encoders.baselines.common import MEAN, STD, by_preset, frozen_baseline
from stylesim.encoders.controls import FrozenEncoder
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.weights.formats import State
from stylesim.encoders.weights.published import SSCD

# The model was trained with ClassyVision's ResNet and is published under its names and under torchvision's.
_FROM_CLASSY_VISION = {
    "initial_block._module.0.": "conv1.",
    "initial_block._module.1.": "bn1.",
    ".convolutional_block.0.": ".conv1.",
    ".convolutional_block.1.": ".bn1.",
    ".convolutional_block.3.": ".conv2.",
    ".convolutional_block.4.": ".bn2.",
    ".convolutional_block.6.": ".conv3.",
    ".bn.": ".bn3.",
    "embeddings.1.": "fc.",
}


class GeM(nn.Module):
    """Generalised mean over the pixels, p = 3: between the average (p = 1) and the maximum."""

    def forward(self, feature_map: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        cubes = feature_map.float().clamp_min(1e-6).pow(3)  # in float16 the cube of 41 is infinite
        return cubes.mean(dim=(2, 3)).pow(1 / 3).to(feature_map.dtype)


@rebuildable
def sscd_rn50(
    *,
    weights: str = "official",
    preset: Literal["authors", "reference"] = "authors",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """SSCD's ResNet-50 `disc_mixup`, generalised mean pooling and a linear layer, 512-d.

    `weights`: `official` (MIT), `random`, or a file: the published TorchScript archive, whose tensors are taken
    and whose program is not run, or one of the `.torchvision.pt` and `.classy.pt` files beside it. Raises
    StylesimError for weights that are not to be had or do not fit.

    `authors`: short side and centre crop of 288 px, ImageNet's mean and deviation (the authors describe the
    whole of a picture 288 px high, one at a time; a batch needs one size). `reference`: short side 256, crop
    224, mean and deviation one half. `image_size` replaces the crop's size.
    """
    preprocessing = sscd_preprocessing(preset, image_size)
    return frozen_baseline(SSCD, sscd_network(), preprocessing, weights, cache_dir, _from_published)


def sscd_network() -> nn.Module:
    """The network with random weights: `[b 3 h w]` to `[b 512]`, not normalised."""
    from timm.models.resnet import resnet50

    network = resnet50(num_classes=512)
    network.global_pool = GeM()
    return network


def sscd_preprocessing(preset: str, image_size: int | None = None) -> Preprocessing:
    """See `sscd_rn50`; both resize bilinearly."""
    if preset == "reference" and image_size == 288:  # what conf/model/sscd_rn50.yaml says for the authors
        raise StylesimError("preset=reference crops 224 px and not the authors' 288: add image_size=224.")
    size = image_size or by_preset(preset, authors=288, reference=224)
    half = (0.5, 0.5, 0.5)
    return by_preset(
        preset,
        authors=Preprocessing(size, None, "bilinear", MEAN, STD),
        reference=Preprocessing(size, size * 8 // 7, "bilinear", half, half),
    )


def _from_published(state: State, network: nn.Module) -> State:
    return {_own_name(key): value for key, value in state.items()}


def _own_name(key: str) -> str:
    key = re.sub(r"blocks\.(\d)\.block\d-", lambda stage: f"layer{int(stage[1]) + 1}.", key)
    for theirs, ours in _FROM_CLASSY_VISION.items():
        key = key.replace(theirs, ours)
    return key.removeprefix("backbone.")
