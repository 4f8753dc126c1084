"""Find where a resumed run continues in its stream, even if the order of the stream has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from stylesim.data.sampling.plan import Plan


def describe_order(plans: Sequence[Plan], balance: str | None, tags: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Return everything that the order of a stream depends on, as plain values for a checkpoint.

    Args:
        plans: The plan of each source.
        balance: `data.balance`.
        tags: The selected tags with their number of images; they count only where batches are balanced by them.
    """
    order = {
        "processes": plans[0].world,
        "workers": plans[0].workers,
        "batch_size": [plan.batch_size for plan in plans],
        "shuffle_buffer": plans[0].buffer,
        "seed": plans[0].seed,
        "balance": balance,
        "shards": _digest([plan.counts for plan in plans]),
    }
    return order | {"tags": _digest(tags)} if balance else order


def _digest(values: Sequence[Any]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]


def resume_position(
    saved: Mapping[str, Any], order: Mapping[str, Any], steps: int, step: int
) -> tuple[int, str | None]:
    """Return the micro-batch at which a resumed run continues its stream.

    In the order that the run was saved with, this is the micro-batch after the last one. In another order there is no
    such place, and the run begins its next epoch.

    Args:
        saved: What the run has saved: its `order` (see `describe_order`), the `steps` of an epoch in it, the
            `accumulation` of micro-batches in a step, and the `offset` between the micro-batches of the stream and
            those of the run.
        order: The order of the stream now.
        steps: Number of micro-batches of an epoch now.
        step: Number of optimiser steps that the run has done.

    Returns:
        The micro-batch, and a sentence for the user if the order has changed.
    """
    position = step * saved["accumulation"] + saved["offset"]
    if saved["order"] == order:
        return position, None
    epoch = -(-position // saved["steps"])
    changed = ", ".join(
        f"{name} {saved['order'].get(name)} -> {order[name]}"
        for name in order
        if saved["order"].get(name) != order[name]
    )
    left_out = epoch * saved["steps"] - position
    return epoch * steps, (
        f"The order of the images has changed since the run was saved ({changed}), so its place in the epoch is not"
        f" known: it begins epoch {epoch + 1}, and {left_out:,} micro-batches of the previous one are left out."
    )
