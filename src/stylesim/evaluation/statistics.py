"""How far a metric over queries can be trusted: bootstrap intervals, and a paired test of two encoders."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from stylesim.core.errors import StylesimError


class PairedDifference(NamedTuple):
    """How much better one encoder does than another on the same queries."""

    mean: float
    """Of a - b, over the queries that have a value of both."""
    low: float
    high: float
    """The 95 % bootstrap interval of that mean."""
    p_value: float
    """How often flipping signs at random makes a mean as far from 0 as this one, either way; in (0, 1]."""


def bootstrap_interval(
    values: Float[np.ndarray, " q"], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean over queries (Efron 1979), NaN left out.

    `level`: the share of resampled means inside, in (0, 1). Without a value both ends are NaN. Raises
    StylesimError for another level.
    """
    if not 0 < level < 1:
        raise StylesimError(f"The level of an interval is between 0 and 1, such as 0.95, not {level}.")
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    # One resample at a time: all of them would be a table of resamples by queries.
    means = [values[rng.integers(values.size, size=values.size)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    a: Float[np.ndarray, " q"], b: Float[np.ndarray, " q"], *, resamples: int = 10000, seed: int = 0
) -> PairedDifference:
    """Whether a metric of two encoders differs by more than chance, by a sign-flip permutation test.

    `a` and `b` are values of the same queries in the same order, as `query_metrics` gives them; a query that
    lacks one of the two is left out. If the encoders were exchangeable, each query's difference could as well
    have had the other sign (Fisher 1935). Raises StylesimError where the lengths differ or no query has both.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise StylesimError(
            f"A paired comparison needs both encoders' values of the same queries, not {list(a.shape)} and"
            f" {list(b.shape)} of them."
        )
    difference = a - b
    difference = difference[~np.isnan(difference)]
    if not difference.size:
        raise StylesimError("No query has a value of both encoders, so there is nothing to compare.")
    moving = difference[difference != 0]  # a query on which both agree has no sign to flip
    rng, observed = np.random.default_rng(seed), abs(moving.sum()) * (1 - 1e-12)  # but for rounding
    extreme = 0
    for start in range(0, resamples, 256):
        signs = rng.integers(2, size=(min(256, resamples - start), moving.size), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ moving) >= observed).sum())
    low, high = bootstrap_interval(difference, seed=seed)
    # The observed assignment is one of the permutations, so p is never 0 (Phipson and Smyth 2010).
    return PairedDifference(float(difference.mean()), low, high, (extreme + 1) / (resamples + 1))
