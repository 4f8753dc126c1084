"""Inner products of descriptors in the fastest formats of the hardware, with error bounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stylesim.core.errors import ConfigError, DataError

MAX_BLOCK_NUMBERS = 1 << 25
"""The most descriptor values (rows x dimensions) that one step holds."""


class MatmulMode(NamedTuple):
    """A precision in which candidates are proposed."""

    matmul: str
    """Name for `torch.set_float32_matmul_precision`."""
    dtype: torch.dtype
    oversampling: float
    """Candidates proposed for each of the k neighbours; a fixed margin is added to them."""
    error_bound: float
    """The largest possible error of a proposed product; -inf for float64, whose products are final."""


def matmul_modes(q: Float[Tensor, "q d"], g: Float[Tensor, "g d"], device: torch.device) -> list[MatmulMode]:
    """List the precisions in which to propose candidates.

    Args:
        q: Queries.
        g: Gallery.
        device: The device that multiplies.

    Returns:
        The precisions from the fastest one to float64, whose result is always accepted.

    Raises:
        DataError: If a row contains NaN or infinity.
    """
    (norm_q, lost_q), (norm_g, lost_g) = max_norms("queries", q), max_norms("gallery", g)
    error_bound = (q.shape[1] + 2) * torch.finfo(torch.float32).eps * norm_q * norm_g + 2.0**-39
    modes = [
        MatmulMode("highest", torch.float32, 1.0, error_bound),
        MatmulMode("highest", torch.float64, 1.0, -torch.inf),
    ]
    if has_reduced_precision(device):
        # Rounding q to q' and g to g' changes the product by (q - q')g + q'(g - g'); bounded by Cauchy-Schwarz.
        reduced = lost_q * norm_g + 1.01 * norm_q * lost_g
        modes.insert(0, MatmulMode("medium", torch.float32, 1.5, error_bound + reduced))
    return modes


@cache
def has_reduced_precision(device: torch.device) -> bool:
    """Return whether the device can multiply float32 matrices in bfloat16 or TF32, which is several times faster."""
    fine = torch.full((256, 256), 1 + 2.0**-12, device=device)  # neither format can represent this value
    with matmul_precision("medium"):
        return bool(((fine @ fine)[0, 0] / 256 - 1).abs() < 2.0**-12)


def max_norms(name: str, x: Float[Tensor, "n d"]) -> tuple[float, float]:
    """Return the largest norm of a row, and the largest norm of what a row loses when rounded to bfloat16.

    bfloat16 rounds more coarsely than TF32, so the second number bounds both.

    Args:
        name: How the error message calls the rows.
        x: The rows.

    Raises:
        DataError: If a row contains NaN or infinity.
    """
    parts = x.split(min(8192, max(1, MAX_BLOCK_NUMBERS // max(1, x.shape[1]))))
    norms = torch.cat([part.float().norm(dim=1) for part in parts])
    if len(bad := (~norms.isfinite()).nonzero()):
        raise DataError(f"{len(bad)} of the {name} contain NaN or infinity, the first in row {int(bad[0])}.")
    lost = torch.cat([(part - part.bfloat16()).float().norm(dim=1) for part in parts])
    return float(norms.max()) if len(x) else 0.0, float(lost.max()) if len(x) else 0.0


def round_scores(scores: Any) -> Any:
    """Round to multiples of 2^-40, so that the summation order in float64 cannot break a tie."""
    return (scores * 2.0**40).round() / 2.0**40


def as_cpu_tensor(x: Tensor | np.ndarray) -> Tensor:
    """Return a floating-point tensor on the CPU, sharing memory with `x` where possible."""
    x = x.detach().cpu() if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
    return x if x.dtype in (torch.float16, torch.float32, torch.float64) else x.float()


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Set the precision of float32 matrix products within the block, then restore that of the training run."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def check_shapes(q: Tensor, g: Tensor, k: int) -> None:
    """Check the arguments of a search.

    Raises:
        DataError: If queries and gallery are not `[q d]` and `[g d]` with the same d.
        ConfigError: If k is below 1.
    """
    if q.ndim != 2 or g.ndim != 2 or q.shape[1] != g.shape[1]:
        raise DataError(
            f"Queries and gallery must have shapes [q d] and [g d] with the same d, got {list(q.shape)} and "
            f"{list(g.shape)}. Embed both with the same encoder."
        )
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}.")
