"""EfficientNet-Lite0: the weights of the Python package in timm's network."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from stylesim.core.errors import WeightsError
from stylesim.encoders.backbones.lite0 import TIMM_NAME, from_lite_package, imagenet_weights, lite0_network


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return lite0_network(imagenet_weights())


def test_logits_equal_those_of_the_packages_own_implementation(network: nn.Module):
    ramp = torch.linspace(-1, 1, 3 * 224 * 224).reshape(1, 3, 224, 224)
    with torch.no_grad():
        logits = network(ramp)[0]
    # Measured with efficientnet-lite-pytorch 0.1.0 on the same file; on random images the difference is 0 too.
    measured = [
        0.26600108,
        0.59058219,
        1.71974361,
        1.38394749,
        1.84002757,
        1.91019109,
        -0.03528192,
        -0.54942393,
    ]
    torch.testing.assert_close(logits[:8], torch.tensor(measured), atol=1e-4, rtol=1e-4)
    assert logits.topk(5).indices.tolist() == [701, 437, 540, 405, 744]


def test_network_has_4_65_million_parameters_and_fused_batch_norms(network: nn.Module):
    plain = timm.create_model(TIMM_NAME).eval()
    norms = [module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)]
    assert sum(p.numel() for p in plain.parameters()) == 4_652_008
    assert sum(p.numel() for p in network.parameters()) == 4_652_008 - sum(norm.num_features for norm in norms)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_file_of_another_network_is_refused():
    network = timm.create_model(TIMM_NAME)
    state = dict(imagenet_weights())
    short = dict(list(state.items())[:-1])
    with pytest.raises(WeightsError, match="must hold 296 tensors, got 295"):
        from_lite_package(short, network)
    state["_blocks.3._bn1.weight"] = torch.zeros(7)
    with pytest.raises(WeightsError, match=r"does not fit: _blocks\.3\._bn1\.weight has shape \[7\]"):
        from_lite_package(state, network)
