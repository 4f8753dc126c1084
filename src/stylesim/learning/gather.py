"""Gather the global batch on every process, with a backward pass that gives the gradient of the global loss.

A contrastive loss compares all images of the global batch. Each process therefore gathers the descriptors of all
processes and computes the terms whose anchors are its own images; the sum of all terms is the global loss. DDP averages
gradients over processes. The average is the gradient of the global loss only if the backward pass *sums* over
processes: a descriptor occurs in the terms of every process, and each term occurs in every process's copy of the loss.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from stylesim.core.errors import ConfigError


def gather_batch(
    views: Float[Tensor, "v b d"], tags: Bool[Tensor, "b t"]
) -> tuple[Float[Tensor, "v n d"], Bool[Tensor, "n t"], slice]:
    """Gather the local batches of all processes, in rank order within each view.

    Every process must call this once per micro-batch and run the backward pass through it, which is a collective too:
    it sums the gradients of a descriptor over all processes. Further descriptors, such as those of a content head, can
    be passed as further views. Without a process group, or in a group of one, the inputs are returned unchanged.

    Args:
        views: Descriptors of the local batch. `b` may differ between processes and may be 0; `v`, `d` and the dtype
            must be the same everywhere.
        tags: Multi-hot tags of the local batch; `t` must be the same everywhere.

    Returns:
        The descriptors and tags of the global batch of `n` images, and the slice of `n` that is the local batch.
    """
    if _is_single_process():
        return views, tags, slice(0, len(tags))
    size = torch.tensor([len(tags)], device=tags.device)
    sizes = size.new_empty(dist.get_world_size())
    dist.all_gather_into_tensor(sizes, size)
    sizes = sizes.tolist()
    rows = _Gather.apply(views.transpose(0, 1), sizes)
    first = sum(sizes[: dist.get_rank()])
    return rows.transpose(0, 1), _gather_rows(tags.byte(), sizes).bool(), slice(first, first + len(tags))


def sum_shares(shares: Float[Tensor, " k"], gradient: Literal["exact", "reference"] = "exact") -> Float[Tensor, " k"]:
    """Sum a loss and the values logged with it over all processes, each of which has computed a share of them.

    Args:
        shares: The shares of this process.
        gradient: `exact` takes into account that a share is part of every process's copy of the loss, so that DDP's
            average is the gradient of the global loss. `reference` counts only the process's own copy, as the
            published code does, so that DDP's average is the true gradient divided by the world size.

    Returns:
        The sums, the same on all processes.

    Raises:
        ConfigError: If `gradient` is neither.
    """
    if gradient not in ("exact", "reference"):
        raise ConfigError(f"learning.gather must be 'exact' or 'reference', got {gradient!r}.")
    return shares if _is_single_process() else _Sum.apply(shares, gradient)


def _is_single_process() -> bool:
    return not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1


def _gather_rows(rows: Tensor, sizes: list[int]) -> Tensor:
    """Concatenate the rows of all ranks, whose numbers (`sizes`) may differ, by padding them for the collective."""
    longest = max(sizes)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    if padded.numel() == 0:  # no images on any rank, or an empty vocabulary
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
        # All processes start the backward pass from the same sum, so its gradient is the same without communication.
        ctx.copies = dist.get_world_size() if gradient == "exact" else 1
        total = shares.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.copies, None
