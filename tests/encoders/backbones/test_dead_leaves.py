"""Synthetic images of the dead leaves model."""

from __future__ import annotations

import torch

from stylesim.encoders.backbones.dead_leaves import dead_leaves


def test_images_are_reproducible_and_distinct():
    images = dead_leaves(5, 32)
    assert torch.equal(images, dead_leaves(5, 32))
    assert 0 <= images.min() <= images.max() <= 1
    assert len(images.flatten(1).unique(dim=0)) == 5
