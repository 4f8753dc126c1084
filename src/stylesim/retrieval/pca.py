"""Principal components in memory that does not grow with the number of descriptors, however wide these are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from stylesim.core.errors import StylesimError

WIDE = 4096
"""Numbers of a descriptor beyond which the table of covariances (d x d) is not made."""
TABLE = 2**32
"""Bytes of axes that are kept unasked."""
OVERSAMPLING, PASSES = 16, 4
"""Of the randomised range finder: further directions, and passes over the data (Halko et al. 2011, section 4.5)."""
_BYTES = 64 << 20
"""Of one block of descriptors."""


class PrincipalComponents(NamedTuple):
    """A fitted projection."""

    mean: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "d r"]
    """Orthonormal columns, the strongest first."""
    variances: Float[np.ndarray, " r"]

    def project(
        self, x: Float[np.ndarray, "n d"], *, whiten: bool = False, unit_before: bool = False, unit: bool = False
    ) -> Float[np.ndarray, "n r"]:
        """Centred `x` along the axes, float32; with `whiten` at unit variance.

        `unit_before` and `unit` bring every row to unit length before or after it.
        """
        keep = self.variances > 1e-7 * self.variances.max() if whiten else np.ones(len(self.variances), dtype=bool)
        axes = self.axes[:, keep] / (np.sqrt(self.variances[keep]) if whiten else 1)
        offset, axes = (self.mean @ axes).astype(np.float32), axes.astype(np.float32)
        out = np.empty((len(x), axes.shape[1]), dtype=np.float32)
        start = 0
        for block in _blocks(x, unit_before):
            rows = block @ axes - offset
            out[start : start + len(block)] = _to_unit(rows) if unit else rows
            start += len(block)
        return out


def fit_pca(x: Float[np.ndarray, "n d"], dim: int | None = None, *, unit: bool = False) -> PrincipalComponents:
    """The `dim` directions in which `x` varies most (None: all), or fewer where n or d allow no more.

    Up to WIDE numbers wide, exactly, from covariances summed in float64; beyond, by a randomised range finder
    (Halko, Martinsson and Tropp 2011) that holds two tables of d by `dim`. Both read `x` block by block. `unit`:
    bring every row to unit length first. Raises StylesimError for fewer than two rows or a dim below 1.
    """
    n, d = x.shape
    if n < 2 or (dim is not None and dim < 1):
        raise StylesimError(f"Principal components need two descriptors or more and a dim of 1 or more: {n}, {dim}.")
    if dim is None and d > WIDE and 4 * d * min(d, n) > TABLE:
        raise StylesimError(
            f"Descriptors of {d} numbers have too many axes to keep them all: say how many, such as readout.dim=1024."
        )
    rank = min(dim or d, d, n - 1)
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in _blocks(x, unit)) / n
    if d <= WIDE:
        covariance = np.zeros((d, d))
        for block in _blocks(x, unit):
            centred = block - mean
            covariance += centred.T @ centred
        variances, axes = np.linalg.eigh(covariance / (n - 1))
        variances, axes = variances[::-1][:rank], axes[:, ::-1][:, :rank]
    else:
        basis = _range(x, mean.astype(np.float32), min(rank + OVERSAMPLING, n, d), unit)
        inner = np.zeros((basis.shape[1], basis.shape[1]))
        for block in _blocks(x, unit):
            along = ((block - mean.astype(np.float32)) @ basis).astype(np.float64)
            inner += along.T @ along
        variances, turn = np.linalg.eigh(inner / (n - 1))
        variances, axes = variances[::-1][:rank], basis @ turn[:, ::-1][:, :rank].astype(np.float32)
    return PrincipalComponents(mean, axes, variances.clip(min=0))


def _range(
    x: Float[np.ndarray, "n d"], mean: Float[np.ndarray, " d"], width: int, unit: bool
) -> Float[np.ndarray, "d w"]:
    """Orthonormal columns that nearly span the strongest directions of centred `x`."""
    basis = np.random.default_rng(0).standard_normal((x.shape[1], width), dtype=np.float32)
    for _ in range(PASSES):
        image = np.zeros_like(basis)
        for block in _blocks(x, unit):
            centred = block - mean
            image += centred.T @ (centred @ basis)
        basis = np.linalg.qr(image)[0]
    return basis


def _blocks(x: Float[np.ndarray, "n d"], unit: bool) -> Iterator[Float[np.ndarray, "b d"]]:
    """`x` in float32, a few rows at a time."""
    rows = max(1, _BYTES // (4 * x.shape[1]))
    for start in range(0, len(x), rows):
        block = np.asarray(x[start : start + rows], dtype=np.float32)
        yield _to_unit(block) if unit else block


def _to_unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return x / np.linalg.norm(x, axis=1, keepdims=True).clip(min=1e-12)
