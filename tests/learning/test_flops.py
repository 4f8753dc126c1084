from __future__ import annotations

import pytest
import torch
from torch import nn

from stylesim.encoders import csd_clip
from stylesim.learning.flops import forward_flops, peak_flops


def test_the_flops_of_a_vit_include_its_attention() -> None:
    """ViT-B/16 at 224 px: 12 blocks of 197 tokens, 768 wide, counted by hand."""
    encoder = csd_clip(architecture="ViT-B-16", weights="random").eval()
    tokens, width, blocks = 197, 768, 12
    linear = 2 * tokens * width * width * (3 + 1 + 4 + 4)  # query, key and value; output; the MLP up and down
    attention = 2 * 2 * tokens * tokens * width
    patches = 2 * 196 * width * (3 * 16 * 16)
    head = 2 * width * 512
    counted = forward_flops(encoder, torch.zeros(1, 3, 224, 224))
    assert counted == pytest.approx(blocks * (linear + attention) + patches + head, rel=0.01)


def test_counting_does_not_undo_compilation() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]):
        graphs.append(graph)
        return graph.forward

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    network.compile(backend=backend)
    image = torch.zeros(1, 3, 8, 8)
    assert forward_flops(network, image) > 0
    assert not graphs
    network(image)
    assert len(graphs) == 1


def test_a_cpu_has_no_known_peak() -> None:
    assert peak_flops(torch.device("cpu"), torch.float32) is None
