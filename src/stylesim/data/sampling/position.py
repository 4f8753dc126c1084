"""Where a run stands in its stream, and where it goes on if the stream is no longer the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from stylesim.data.sampling.plan import Plan


def order_of(plans: Sequence[Plan], balance: str | None, tags: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """All that the order of a stream depends on, as plain values that a checkpoint may hold.

    The selected `tags`, with how many images have each, are a part of it where batches are chosen by them.
    """
    order = {
        "processes": plans[0].world,
        "workers": plans[0].workers,
        "batch_size": [plan.batch for plan in plans],
        "shuffle_buffer": plans[0].buffer,
        "seed": plans[0].seed,
        "balance": balance,
        "shards": _digest([plan.counts for plan in plans]),
    }
    return order | {"tags": _digest(tags)} if balance else order


def _digest(values: Sequence[Any]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]


def re_enter(before: Mapping[str, Any], order: Mapping[str, Any], steps: int, step: int) -> tuple[int, str | None]:
    """The micro-batch at which a resumed run enters its stream, and the sentence to say if that is another place.

    `before`: what the run has saved: the `order`, the micro-batches (`steps`) of an epoch of it, the `accumulation`,
    and the `offset` of the stream, whose micro-batch `step * accumulation + offset` was the next one. In the same
    order it still is. In another one there is no such place: the run begins its next epoch, of `steps` micro-batches.
    """
    position = step * before["accumulation"] + before["offset"]
    if before["order"] == order:
        return position, None
    epoch = -(-position // before["steps"])
    changed = ", ".join(
        f"{name} {before['order'].get(name)} -> {order[name]}"
        for name in order
        if before["order"].get(name) != order[name]
    )
    left = epoch * before["steps"] - position
    return epoch * steps, (
        f"the run is resumed with another order of its images than it was begun with ({changed}), in which its place"
        f" is not known: it begins epoch {epoch + 1}, and {left:,} micro-batches of the one before are left out"
    )
