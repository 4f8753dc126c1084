"""Feature maps of a network, in which measures of content compare two images place by place."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from stylesim.encoders.backbones.lite0 import imagenet_weights, lite0_network, lite0_preprocessing
from stylesim.encoders.backbones.stage_statistics import Stages
from stylesim.encoders.backbones.timm_backbone import timm_network, timm_preprocessing
from stylesim.encoders.preprocessing import Preprocessing


class FeatureMaps(nn.Module):
    """The feature maps of a timm network that CAS and CFSD read.

    Args:
        network: The network.
        cas_stage: Index of the stage that CAS reads.
        cfsd_stage: Index of the stage that CFSD reads.
        preprocessing: How images are resized, cropped and normalised.
        name: The network and its weights, as tables show it.
    """

    def __init__(
        self, network: nn.Module, cas_stage: int, cfsd_stage: int, preprocessing: Preprocessing, name: str
    ) -> None:
        super().__init__()
        stages = sorted({cas_stage, cfsd_stage})
        self.reader = Stages(network, stages).eval()
        self.cas_position, self.cfsd_position = stages.index(cas_stage), stages.index(cfsd_stage)
        self.preprocessing = preprocessing
        self.name = name

    @torch.no_grad()
    def forward(self, pixels: UInt8[Tensor, "b 3 s s"]) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b d i j"]]:
        """Return the maps for CAS and for CFSD of images that `preprocessing` has resized."""
        maps = self.reader(self.preprocessing.normalise(pixels))
        return maps[self.cas_position].float(), maps[self.cfsd_position].float()


def lite0_maps(*, cas_stage: int = 3, cfsd_stage: int = 2, image_size: int = 224) -> FeatureMaps:
    """Build the maps of EfficientNet-Lite0 with ImageNet weights, which stands in for DINOv2 and VGG19.

    Args:
        cas_stage: Index of the stage that CAS reads; 3 has stride 16.
        cfsd_stage: Index of the stage that CFSD reads; 2 has stride 8.
        image_size: Image size in pixels.

    Raises:
        WeightsError: If the package with the weights is not installed.
    """
    network = lite0_network(imagenet_weights())
    return FeatureMaps(network, cas_stage, cfsd_stage, lite0_preprocessing(image_size), "lite0 imagenet")


def timm_maps(
    *, name: str, cas_stage: int, cfsd_stage: int, pretrained: bool = True, image_size: int | None = None
) -> FeatureMaps:
    """Build the maps of any timm network, such as DINOv2, for which CAS was defined.

    Args:
        name: Name of the timm model.
        cas_stage: Index of the stage (in a vision transformer, of the block) that CAS reads.
        cfsd_stage: Index of the stage that CFSD reads.
        pretrained: Load timm's weights; otherwise they are random.
        image_size: Image size in pixels; None means timm's default.

    Raises:
        ConfigError: If timm has no such model, or it cannot be read at these stages.
        WeightsError: If the weights cannot be obtained.
    """
    network = timm_network(name, pretrained, image_size)
    preprocessing = timm_preprocessing(network, image_size)
    return FeatureMaps(network, cas_stage, cfsd_stage, preprocessing, name if pretrained else f"random {name}")
