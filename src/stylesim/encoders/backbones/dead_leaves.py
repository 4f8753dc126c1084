"""Synthetic images with edges, areas and colours, for statistics that must not depend on a data set."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def dead_leaves(count: int, size: int, seed: int = 0) -> Float[Tensor, "n 3 s s"]:
    """Draw images of twelve flat discs that occlude each other, in [0, 1].

    The dead leaves model of Lee, Mumford and Huang (2001). The same seed gives the same pixels.

    Args:
        count: Number of images.
        size: Side of an image in pixels.
        seed: Seed of the random generator.
    """
    draw = torch.Generator().manual_seed(seed)
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    images = torch.rand(count, 3, 1, 1, generator=draw).expand(count, 3, size, size)
    for _ in range(12):
        x, y = torch.rand(2, count, 1, 1, generator=draw) * size
        radius = torch.rand(count, 1, 1, generator=draw) ** 2 * size / 2 + 1
        disc = (column - x) ** 2 + (row - y) ** 2 < radius**2
        images = torch.where(disc[:, None], torch.rand(count, 3, 1, 1, generator=draw), images)
    return images
