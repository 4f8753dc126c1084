"""Divide a batch among weighted sources."""

from __future__ import annotations

import math
from collections.abc import Mapping

from stylesim.core.errors import ConfigError


def split_batch(batch_size: int, weights: Mapping[str, float]) -> list[int]:
    """Divide a batch in proportion to weights, in whole images, by largest remainder.

    Args:
        batch_size: Number of images to divide.
        weights: Weight of each location.

    Returns:
        The number of images of each location, which add up to `batch_size`.

    Raises:
        ConfigError: If a weight is not positive, or too small for one image of a batch.
    """
    if not all(0 < weight < math.inf for weight in weights.values()):
        raise ConfigError(f"The weights of data.root must be positive numbers, got {dict(weights)}.")
    exact = [batch_size * weight / sum(weights.values()) for weight in weights.values()]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: batch_size - sum(shares)]:
        shares[i] += 1
    for location, share in zip(weights, shares, strict=True):
        if share == 0:
            raise ConfigError(
                f"The weight {weights[location]} of {location} is less than one image of a batch of {batch_size}: "
                f"raise the weight, or data.batch_size."
            )
    return shares
