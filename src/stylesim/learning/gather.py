"""The one gather: every process sees the global batch, and the gradient finds its way back.

A contrastive loss compares all images of the global batch. Each process therefore gathers the descriptors of
all the others, computes the same global loss, and lets DDP average the gradients over processes. The average
is the gradient of that loss only if the gather's backward *sums* over processes: a descriptor takes part in
every process's copy of the loss.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from stylesim.errors import StylesimError


def gather_batch(
    views: Float[Tensor, "v b d"],
    tags: Bool[Tensor, "b t"],
    gradient: Literal["exact", "reference"] = "exact",
) -> tuple[Float[Tensor, "v n d"], Bool[Tensor, "n t"]]:
    """Gather the local batches of all processes, in rank order within each view.

    Local sizes `b` may differ and may be 0; `v`, `d`, `t` and dtypes are the same everywhere. Every process
    calls this once per micro-batch, and runs backward through it: its backward communicates as well. More
    descriptors, such as a content head's, ride along as further views. Without a process group, or in a
    group of one, the inputs are returned as they are.

    Args:
        gradient: `exact` sums the gradient over processes, so that after DDP's mean it is that of the global
            loss. `reference` keeps each process's own share alone, as the published code does: after DDP's
            mean that is 1 / world size of the gradient.
    """
    if gradient not in ("exact", "reference"):
        raise StylesimError(f"The gather's gradient is {gradient!r}; choose 'exact' or 'reference'.")
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return views, tags
    size = torch.tensor([len(tags)], device=tags.device)
    sizes = size.new_empty(dist.get_world_size())
    dist.all_gather_into_tensor(sizes, size)
    sizes = sizes.tolist()
    rows = _Gather.apply(views.transpose(0, 1), sizes, gradient)
    return rows.transpose(0, 1), _gather_rows(tags.byte(), sizes).bool()


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
    def forward(ctx: Any, rows: Tensor, sizes: list[int], gradient: str) -> Tensor:
        ctx.sizes, ctx.gradient = sizes, gradient
        return _gather_rows(rows, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        if ctx.gradient == "exact" and gradient.numel():
            gradient = gradient.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(gradient)
        return gradient.split(ctx.sizes)[dist.get_rank()], None, None
