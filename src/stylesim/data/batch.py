"""What a stream hands to the model."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, UInt8
from torch import Tensor


class Batch(NamedTuple):
    """One micro-batch of one rank: as many images as were asked for, less the damaged ones."""

    views: UInt8[Tensor, "v b 3 h w"]
    """Raw RGB in 0..255, not normalised: `v` views of each image."""
    tags: Bool[Tensor, "b t"]
    """Which tags of the vocabulary each image has; none at all is possible."""
    keys: list[str]
    """`<root>/<shard>/<key>`, unique in a run."""
    damaged: list[tuple[str, str]]
    """(key or shard, reason) of each slot that is missing from this batch."""
