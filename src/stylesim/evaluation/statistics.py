"""Bootstrap intervals of a metric over queries, tests of two encoders, and the correction of p-values.

`scipy.stats.bootstrap` and `permutation_test` compute the same statistics, as the tests check, but are not used here:
for a few hundred queries the former takes twice as long, its import takes a second, and the latter draws other random
numbers, so p-values published before would change.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from stylesim.core.errors import ConfigError, DataError


class PairedDifference(NamedTuple):
    """How much better one encoder is than another on the same queries."""

    mean: float
    """Mean of a - b over the queries that have both values."""
    low: float
    high: float
    """The 95 % bootstrap interval of that mean."""
    p_value: float
    """Share of random sign flips whose mean is at least as far from 0, on either side; in (0, 1]."""


def bootstrap_interval(
    values: Float[np.ndarray, " q"], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of a mean over queries (Efron 1979).

    Args:
        values: One value per query; NaN is left out.
        level: The share of resampled means inside the interval, in (0, 1).
        resamples: The number of resamples.
        seed: Seed of the resampling.

    Returns:
        The lower and upper end; NaN if there is no value.

    Raises:
        ConfigError: If `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ConfigError(f"The level of an interval must be between 0 and 1, such as 0.95, got {level}.")
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    # One resample at a time, because all of them would be an array [resamples queries].
    means = [values[rng.integers(values.size, size=values.size)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    a: Float[np.ndarray, " q"], b: Float[np.ndarray, " q"], *, resamples: int = 10000, seed: int = 0
) -> PairedDifference:
    """Test whether a metric of two encoders differs by more than chance, with a sign-flip permutation test.

    If the encoders were exchangeable, the difference on each query could equally have had the other sign
    (Fisher 1935).

    Args:
        a: Values of one encoder, as from `query_metrics`. A query with NaN in `a` or `b` is left out.
        b: Values of the other encoder, for the same queries in the same order.
        resamples: The number of random sign flips.
        seed: Seed of the sign flips and of the bootstrap.

    Returns:
        The mean difference, its interval and the p-value.

    Raises:
        DataError: If the shapes differ, or no query has both values.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(
            f"A paired comparison needs values of both encoders for the same queries, got shapes {list(a.shape)} and"
            f" {list(b.shape)}."
        )
    difference = a - b
    difference = difference[~np.isnan(difference)]
    if not difference.size:
        raise DataError("No query has a value for both encoders, so there is nothing to compare.")
    nonzero = difference[difference != 0]  # flipping the sign of 0 changes nothing
    rng, observed = np.random.default_rng(seed), abs(nonzero.sum()) * (1 - 1e-12)  # tolerates rounding
    extreme = 0
    for start in range(0, resamples, 256):
        signs = rng.integers(2, size=(min(256, resamples - start), nonzero.size), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ nonzero) >= observed).sum())
    low, high = bootstrap_interval(difference, seed=seed)
    # The observed assignment is one of the permutations, so p is never 0 (Phipson and Smyth 2010).
    return PairedDifference(float(difference.mean()), low, high, (extreme + 1) / (resamples + 1))


def independent_difference(
    a: Float[np.ndarray, " m"], b: Float[np.ndarray, " n"], *, resamples: int = 2000, seed: int = 0
) -> PairedDifference:
    """Compare two means of values that are not paired: a bootstrap of both sides, and Welch's t-test.

    Args:
        a: Values of one side; NaN is left out.
        b: Values of the other side.
        resamples: The number of resamples.
        seed: Seed of the resampling.

    Returns:
        The difference of the means, its 95 % interval and the p-value; NaN for what needs two values on each side.
    """
    from scipy.stats import ttest_ind  # its import takes a second

    a, b = (np.asarray(side, dtype=np.float64) for side in (a, b))
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    difference = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return PairedDifference(difference, float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    means = [
        a[rng.integers(len(a), size=len(a))].mean() - b[rng.integers(len(b), size=len(b))].mean()
        for _ in range(resamples)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    same = a.std() == 0 and b.std() == 0
    p_value = float(difference == 0) if same else float(np.asarray(ttest_ind(a, b, equal_var=False))[1])
    return PairedDifference(difference, float(low), float(high), p_value)


def holm(p_values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Correct p-values for their number, so that the chance of any false one stays bounded (Holm 1979).

    Args:
        p_values: The p-values; NaN stays NaN and does not count.

    Returns:
        The corrected p-values, in the same order.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1) if len(order) else steps
    return corrected
