"""Intervals of a label's score: a bootstrap over the label's works, widened for labels with few works."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float

from stylesim.scoring.attribution.label_evidence import Evidence

RESAMPLES = 1000
_T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""0.975 quantiles of Student's t with 1, 2, ... degrees of freedom."""
_Z = 1.959964


def score_interval(
    similarities: Float[np.ndarray, " w"], score: float, average: float, spread: float, evidence: Evidence, seed: int
) -> tuple[float, float]:
    """Return the 95 % interval of a label's score over the choice of the label's works.

    The percentile bootstrap is too narrow for small samples: its distances from the score are multiplied by
    sqrt(n / (n - 1)) t / z, where t and z are quantiles of Student's t and of the normal distribution (Hesterberg
    2015, "expanded percentile interval"). A single work has no spread of its own, so the common spread is taken with
    Student's t of one degree of freedom.

    Args:
        similarities: Similarities of the image to the works of the label.
        score: The score of the label.
        average: The value that stands in for missing nearest works (see `Evidence.nearest_works`).
        spread: Standard deviation of the similarities to the works of a label, over the labels with two works or more;
            NaN if there is none.
        evidence: How the score is computed.
        seed: Seed of the bootstrap.

    Returns:
        The lower and upper end; NaN if no label has two works, so that the spread is unknown.
    """
    count = len(similarities)
    if count < 2:
        return score - _T_QUANTILES[0] * spread, score + _T_QUANTILES[0] * spread
    if evidence.pool == "pooled":
        resampled = _resample_weights(count, seed) @ similarities
    else:
        largest = np.sort(similarities)[::-1][_largest_of_resamples(count, min(count, evidence.nearest_works), seed)]
        absent = evidence.nearest_works - largest.shape[1]
        resampled = (largest.sum(axis=1) + absent * average) / evidence.nearest_works
    low, high = np.quantile(resampled, (0.025, 0.975))
    factor = expansion(count)
    return min(score, score - factor * (score - low)), max(score, score + factor * (high - score))


def expansion(count: int) -> float:
    """Return by how much a percentile interval of `count` values, 2 or more, is widened."""
    df = count - 1
    t = _T_QUANTILES[df - 1] if df <= len(_T_QUANTILES) else _Z + (_Z**3 + _Z) / (4 * df)
    return float(np.sqrt(count / df) * t / _Z)


@lru_cache(maxsize=64)
def _resample_weights(count: int, seed: int) -> Float[np.ndarray, "r w"]:
    """Return the share of each value in each resample."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES) / count


@lru_cache(maxsize=1024)
def _largest_of_resamples(count: int, most: int, seed: int) -> np.ndarray:
    """Return the ranks, from 0, of the `most` largest values of each resample, without drawing the rest.

    A resample of n values is n ranks floor(n u) with uniform u. The smallest of n uniforms has the distribution of
    1 - v^(1 / n), and given it, the others are uniform above it (order statistics).
    """
    rng = np.random.default_rng(seed)
    uniforms, below = np.empty((RESAMPLES, most)), np.zeros(RESAMPLES)
    for position in range(most):
        below = 1 - (1 - below) * rng.random(RESAMPLES) ** (1 / (count - position))
        uniforms[:, position] = below
    return np.minimum((uniforms * count).astype(np.int64), count - 1)
