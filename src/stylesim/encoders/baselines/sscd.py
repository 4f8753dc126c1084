"""SSCD: a ResNet-50 trained to detect copies (Pizzi et al. 2022), used as a baseline for style."""

from __future__ import annotations

import re
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from stylesim.core.errors import ConfigError
from stylesim.encoders.baselines.frozen_baseline import MEAN, STD, by_preset, frozen_baseline
from stylesim.encoders.frozen_encoder import FrozenEncoder
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.weights.published import SSCD
from stylesim.encoders.weights.weight_formats import State

# The model was trained with ClassyVision's ResNet and is published with its names and with torchvision's.
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
    """Generalised mean over the pixels with p = 3, which lies between the average (p = 1) and the maximum."""

    def forward(self, feature_map: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        """Pool feature maps over their pixels."""
        cubes = feature_map.float().clamp_min(1e-6).pow(3)  # in float16, the cube of 41 overflows
        return cubes.mean(dim=(2, 3)).pow(1 / 3).to(feature_map.dtype)


@rebuildable
def sscd_rn50(
    *,
    weights: str = "official",
    preset: Literal["authors", "reference"] = "authors",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """Build SSCD's ResNet-50 `disc_mixup` with generalised mean pooling and a linear layer, 512-d.

    Args:
        weights: `official` (MIT), `random`, or a file: the published TorchScript archive, of which only the tensors
            are read and no code is run, or one of the `.torchvision.pt` and `.classy.pt` files published beside it.
        preset: `authors`: short side and centre crop of 288 px, ImageNet's mean and std. (The authors embed whole
            images with a short side of 288 px, one at a time; a batch needs one size.) `reference`: short side 256,
            crop 224, mean and std 0.5.
        image_size: Crop size in pixels; None means that of the preset.
        cache_dir: Folder of downloaded weights.

    Raises:
        WeightsError: If the weights cannot be obtained or do not fit.
        ConfigError: If the preset is unknown or the image size belongs to the other preset.
    """
    preprocessing = sscd_preprocessing(preset, image_size)
    return frozen_baseline(SSCD, sscd_network(), preprocessing, weights, cache_dir, _from_published)


def sscd_network() -> nn.Module:
    """Build the network with random weights: `[b 3 h w]` to `[b 512]`, not normalised."""
    from timm.models.resnet import resnet50

    network = resnet50(num_classes=512)
    network.global_pool = GeM()
    return network


def sscd_preprocessing(preset: str, image_size: int | None = None) -> Preprocessing:
    """Return the preprocessing described in `sscd_rn50`. Both presets resize with bilinear interpolation."""
    if preset == "reference" and image_size == 288:  # the default in conf/model/sscd_rn50.yaml, meant for `authors`
        raise ConfigError("preset=reference crops 224 px, not the 288 px of preset=authors: add image_size=224.")
    size = image_size or by_preset(preset, authors=288, reference=224)
    half = (0.5, 0.5, 0.5)
    return by_preset(
        preset,
        authors=Preprocessing(size, None, "bilinear", MEAN, STD),
        reference=Preprocessing(size, size * 8 // 7, "bilinear", half, half, "raw"),
    )


def _from_published(state: State, network: nn.Module) -> State:
    return {_timm_name(key): value for key, value in state.items()}


def _timm_name(key: str) -> str:
    key = re.sub(r"blocks\.(\d)\.block\d-", lambda stage: f"layer{int(stage[1]) + 1}.", key)
    for source, target in _FROM_CLASSY_VISION.items():
        key = key.replace(source, target)
    return key.removeprefix("backbone.")
