"""The one gather: every process sees the global batch, and the gradient finds its way back.

A contrastive loss compares all images of the global batch. Each process therefore gathers the descriptors of all
the others, computes the terms of its own images as anchors, and adds them up with everybody's to the one global
loss. DDP averages the gradients over processes; the average is the gradient of that loss only if the backward pass
*sums* over processes: a descriptor takes part in every process's terms, and these in every process's copy of the loss.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from stylesim.core.errors import StylesimError


def gather_batch(
    views: Float[Tensor, "v b d"], tags: Bool[Tensor, "b t"]
) -> tuple[Float[Tensor, "v n d"], Bool[Tensor, "n t"], slice]:
    """Gather the local batches of all processes, in rank order within each view, and say where one's own lies.

    Local sizes `b` may differ and may be 0; `v`, `d`, `t` and dtypes are the same everywhere. Every process
    calls this once per micro-batch, and runs backward through it: its backward communicates as well, and sums what
    all processes ask of a descriptor. More descriptors, such as a content head's, ride along as further views.
    Without a process group, or in a group of one, the inputs are returned as they are.
    """
    if _alone():
        return views, tags, slice(0, len(tags))
    size = torch.tensor([len(tags)], device=tags.device)
    sizes = size.new_empty(dist.get_world_size())
    dist.all_gather_into_tensor(sizes, size)
    sizes = sizes.tolist()
    rows = _Gather.apply(views.transpose(0, 1), sizes)
    first = sum(sizes[: dist.get_rank()])
    return rows.transpose(0, 1), _gather_rows(tags.byte(), sizes).bool(), slice(first, first + len(tags))


def sum_shares(shares: Float[Tensor, " k"], gradient: Literal["exact", "reference"] = "exact") -> Float[Tensor, " k"]:
    """Add up the processes' shares of a loss and of whatever is shown beside it; the sums are the same everywhere.

    Args:
        gradient: `exact` counts that a share takes part in every process's copy of the loss, so that after DDP's
            mean the gradient is that of the global loss. `reference` counts the process's own copy alone, as the
            published code does: after DDP's mean that is 1 / world size of the gradient.
    """
    if gradient not in ("exact", "reference"):
        raise StylesimError(f"The gather's gradient is {gradient!r}; choose 'exact' or 'reference'.")
    return shares if _alone() else _Sum.apply(shares, gradient)  # type: ignore[return-value]


def _alone() -> bool:
    return not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1


def _gather_rows(rows: Tensor, sizes: list[int]) -> Tensor:
    """Concatenate the first dimension over ranks, padded to the largest on the wire."""
    longest = max(sizes)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    if padded.numel() == 0:  # no images anywhere, or an empty vocabulary
        return rows.new_zeros(sum(sizes), *rows.shape[1:])
    gathered = padded.new_empty(len(sizes) * longest, *rows.shape[1:])
    dist.all_gather_into_tensor(gathered, padded)
    return torch.cat([part[:size] for part, size in zip(gathered.split(longest), sizes, strict=True)])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        return _gather_rows(rows, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        if gradient.numel():
            dist.all_reduce(gradient)
        return gradient.split(ctx.sizes)[dist.get_rank()], None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shares: Tensor, gradient: str) -> Tensor:
        # Every process goes backward from the same sum, so their gradients need not be communicated to be added.
        ctx.copies = dist.get_world_size() if gradient == "exact" else 1
        total = shares.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.copies, None
