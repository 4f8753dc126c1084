"""EfficientNet-Lite0 with the ImageNet weights that a Python package brings: real features, offline."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from stylesim.encoders.base import Preprocessing
from stylesim.encoders.weights import LITE0, locate
from stylesim.errors import StylesimError

TIMM_NAME = "tf_efficientnet_lite0"


def lite0_network(pretrained: bool) -> nn.Module:
    """The whole classifier (4.65 M parameters) as timm builds it, with ImageNet or with random weights."""
    import timm

    network = timm.create_model(TIMM_NAME, pretrained=False).eval()
    if pretrained:
        network.load_state_dict(from_lite_package(torch.load(locate(LITE0), weights_only=True), network))
    return network


def lite0_preprocessing(image_size: int) -> Preprocessing:
    """Bicubic, mean and deviation one half, as the weights were trained; no margin is cut off."""
    return Preprocessing(image_size, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def from_lite_package(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The tensors of `efficientnet-lite-pytorch` under timm's names.

    Both list the same layers in the same order under other names; the shape and the last part of each name
    must agree.
    """
    own = network.state_dict()
    for (theirs, value), (ours, expected) in zip(state.items(), own.items(), strict=False):
        if theirs.rpartition(".")[2] != ours.rpartition(".")[2] or value.shape != expected.shape:
            raise StylesimError(f"The EfficientNet-Lite0 file does not fit: {theirs} {list(value.shape)} for {ours}.")
    if len(state) != len(own):
        raise StylesimError(f"The EfficientNet-Lite0 file holds {len(state)} tensors where {len(own)} are needed.")
    return dict(zip(own, state.values(), strict=True))
