"""Principal component analysis whose memory does not grow with the number of descriptors, however wide they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from stylesim.core.errors import ConfigError

WIDE = 4096
"""Descriptors with more dimensions than this are fitted without the d x d covariance matrix."""
MAX_AXES_BYTES = 2**32
"""The most bytes of axes that are kept when `dim` is not given."""
OVERSAMPLING, PASSES = 16, 4
"""Additional directions and passes over the data of the randomised range finder (Halko et al. 2011, section 4.5)."""
BLOCK_BYTES = 64 << 20
"""Size of one block of descriptors."""


class PrincipalComponents(NamedTuple):
    """A fitted projection."""

    mean: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "d r"]
    """Orthonormal columns, the strongest first."""
    variances: Float[np.ndarray, " r"]

    def project(
        self, x: Float[np.ndarray, "n d"], *, whiten: bool = False, unit_before: bool = False, unit: bool = False
    ) -> Float[np.ndarray, "n r"]:
        """Return the coordinates of centred `x` on the axes, in float32.

        Args:
            x: Descriptors.
            whiten: Scale every axis to unit variance, and drop axes with (nearly) no variance.
            unit_before: Normalise the rows before the projection.
            unit: Normalise the rows after the projection.
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
    """Find the `dim` directions in which `x` varies most.

    Up to WIDE dimensions the result is exact, from covariances summed in float64. Beyond, a randomised range finder
    (Halko, Martinsson and Tropp 2011) is used, which holds two arrays `[d dim]`. Both read `x` block by block.

    Args:
        x: Descriptors; may be a memory map.
        dim: The number of directions; fewer are returned if n - 1 or d is smaller. None returns all.
        unit: Normalise the rows first.

    Returns:
        The mean of `x`, and the directions with their variances.

    Raises:
        ConfigError: If there are fewer than two rows, if `dim` is below 1, or if `dim` is None and all axes together
            would exceed MAX_AXES_BYTES.
    """
    n, d = x.shape
    if n < 2 or (dim is not None and dim < 1):
        raise ConfigError(
            f"PCA needs at least two descriptors and a dim of at least 1, got {n} descriptors and dim={dim}."
        )
    if dim is None and d > WIDE and 4 * d * min(d, n) > MAX_AXES_BYTES:
        raise ConfigError(
            f"Descriptors of {d} dimensions have too many principal axes to keep all of them (readout.dim=null). Set "
            "a number, such as readout.dim=1024."
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
        basis = _find_range(x, mean.astype(np.float32), min(rank + OVERSAMPLING, n, d), unit)
        inner = np.zeros((basis.shape[1], basis.shape[1]))
        for block in _blocks(x, unit):
            coordinates = ((block - mean.astype(np.float32)) @ basis).astype(np.float64)
            inner += coordinates.T @ coordinates
        variances, rotation = np.linalg.eigh(inner / (n - 1))
        variances, axes = variances[::-1][:rank], basis @ rotation[:, ::-1][:, :rank].astype(np.float32)
    return PrincipalComponents(mean, axes, variances.clip(min=0))


def _find_range(
    x: Float[np.ndarray, "n d"], mean: Float[np.ndarray, " d"], width: int, unit: bool
) -> Float[np.ndarray, "d w"]:
    """Return orthonormal columns that nearly span the strongest directions of centred `x`."""
    basis = np.random.default_rng(0).standard_normal((x.shape[1], width), dtype=np.float32)
    for _ in range(PASSES):
        product = np.zeros_like(basis)
        for block in _blocks(x, unit):
            centred = block - mean
            product += centred.T @ (centred @ basis)
        basis = np.linalg.qr(product)[0]
    return basis


def _blocks(x: Float[np.ndarray, "n d"], unit: bool) -> Iterator[Float[np.ndarray, "b d"]]:
    """Yield `x` in float32, BLOCK_BYTES at a time."""
    rows = max(1, BLOCK_BYTES // (4 * x.shape[1]))
    for start in range(0, len(x), rows):
        block = np.asarray(x[start : start + rows], dtype=np.float32)
        yield _to_unit(block) if unit else block


def _to_unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return x / np.linalg.norm(x, axis=1, keepdims=True).clip(min=1e-12)
