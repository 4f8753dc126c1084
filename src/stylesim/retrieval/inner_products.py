"""Products of descriptors as fast as the hardware has them, and how far each mode may be off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stylesim.core.errors import StylesimError

MAX_BLOCK_NUMBERS = 1 << 25
"""Of descriptors in one step, at most."""


class MatmulMode(NamedTuple):
    """How candidates are proposed."""

    matmul: str
    """As in `torch.set_float32_matmul_precision`."""
    dtype: torch.dtype
    oversampling: float
    """Candidates for each of the k, beside the margin."""
    error_bound: float
    """How far a proposed product may be off; -inf where it is as good as the decision."""


def matmul_modes(q: Float[Tensor, "q d"], g: Float[Tensor, "g d"], device: torch.device) -> list[MatmulMode]:
    """From the fastest to the one that is always right."""
    (long_q, lost_q), (long_g, lost_g) = max_norms("queries", q), max_norms("gallery", g)
    error_bound = (q.shape[1] + 2) * torch.finfo(torch.float32).eps * long_q * long_g + 2.0**-39
    modes = [
        MatmulMode("highest", torch.float32, 1.0, error_bound),
        MatmulMode("highest", torch.float64, 1.0, -torch.inf),
    ]
    if has_reduced_precision(device):
        shortened = lost_q * long_g + 1.01 * long_q * lost_g  # (q - q')g + q'(g - g'), by Cauchy and Schwarz
        modes.insert(0, MatmulMode("medium", torch.float32, 1.5, error_bound + shortened))
    return modes


@cache
def has_reduced_precision(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 or TF32, several times faster, if it is allowed to."""
    fine = torch.full((256, 256), 1 + 2.0**-12, device=device)  # neither of them can hold it
    with matmul_precision("medium"):
        return bool(((fine @ fine)[0, 0] / 256 - 1).abs() < 2.0**-12)


def max_norms(name: str, x: Float[Tensor, "n d"]) -> tuple[float, float]:
    """The largest norm of a row, and of what a row loses in bfloat16, whose rounding is coarser than TF32's."""
    parts = x.split(min(8192, max(1, MAX_BLOCK_NUMBERS // max(1, x.shape[1]))))
    norms = torch.cat([part.float().norm(dim=1) for part in parts])
    if len(bad := (~norms.isfinite()).nonzero()):
        raise StylesimError(f"{len(bad)} of the {name} hold NaN or infinity, the first in row {int(bad[0])}.")
    lost = torch.cat([(part - part.bfloat16()).float().norm(dim=1) for part in parts])
    return float(norms.max()) if len(x) else 0.0, float(lost.max()) if len(x) else 0.0


def round_scores(scores: Any) -> Any:
    """To 2^-40, so that the order of a float64 summation cannot break a tie."""
    return (scores * 2.0**40).round() / 2.0**40


def as_cpu_tensor(x: Tensor | np.ndarray) -> Tensor:
    """A tensor on the CPU, without a copy where it is one, or an array."""
    x = x.detach().cpu() if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
    return x if x.dtype in (torch.float16, torch.float32, torch.float64) else x.float()


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Float32 products with or without TF32 and bfloat16 shortcuts, whatever the training run has switched on."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def check_shapes(q: Tensor, g: Tensor, k: int) -> None:
    if q.ndim != 2 or g.ndim != 2 or q.shape[1] != g.shape[1]:
        raise StylesimError(
            f"Queries {list(q.shape)} and gallery {list(g.shape)} are [n d] tables with the same d: "
            "were they described by the same encoder?"
        )
    if k < 1:
        raise StylesimError(f"k is at least 1, not {k}.")
