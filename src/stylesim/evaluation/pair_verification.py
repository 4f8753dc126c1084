"""Pair verification: measure how well similarity distinguishes same-label pairs from different-label pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stylesim.core.errors import DataError
from stylesim.evaluation.labels import encode_labels
from stylesim.retrieval.readouts import csls_within

MAX_PAIRS = 5_000_000
"""The most pairs that are compared. If there are more, this many are sampled, half of them with the same label."""


class PairVerification(NamedTuple):
    """How well similarity distinguishes same-label pairs from different-label pairs."""

    auc: float
    """The probability that a same-label pair is more similar than a different-label pair; ties count half."""
    same: int
    different: int
    """The numbers of same-label and different-label pairs that were compared."""
    exact: bool
    """Whether these are all pairs, rather than a sample."""


def verification_auc(
    descriptors: Float[np.ndarray, "n d"],
    labels: Sequence[str],
    *,
    csls: int | None = None,
    pairs: int = MAX_PAIRS,
    seed: int = 0,
) -> PairVerification:
    """Compute the area under the ROC curve for deciding by similarity whether two images have the same label.

    Args:
        descriptors: One unit vector per image.
        labels: One label per image.
        csls: If given, similarities are those of CSLS with this number of neighbours.
        pairs: All pairs are compared if there are at most this many, otherwise a random sample of this many.
        seed: Seed of the sample.

    Returns:
        The AUC, and the pairs that it was computed from.

    Raises:
        DataError: If there are no same-label or no different-label pairs, or not one label per descriptor.
    """
    same, different, exact = _pair_similarities(descriptors, labels, pairs, seed, csls)
    same = np.sort(same)
    below, not_above = np.searchsorted(same, different, "left"), np.searchsorted(same, different, "right")
    auc = 1 - (below + not_above).mean() / 2 / len(same)
    return PairVerification(float(auc), len(same), len(different), exact)


def _pair_similarities(
    descriptors: Float[np.ndarray, "n d"], labels: Sequence[str], pairs: int, seed: int, csls: int | None
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " t"], bool]:
    """Return the similarities of same-label and different-label pairs, and whether these are all pairs."""
    x, _, code = encode_labels(descriptors, labels)
    x, y = csls_within(x, csls) if csls else (x, x)
    exact = len(x) * (len(x) - 1) // 2 <= pairs
    if exact:
        parts = list(_all_pairs(x, y, code))
        same, different = (np.concatenate(kind) for kind in zip(*parts, strict=True))
    else:
        rng = np.random.default_rng(seed)
        drawn = (_draw_same(code, pairs // 2, rng), _draw_different(code, pairs // 2, rng))
        same, different = (_products(x, y, *kind) for kind in drawn)
    if not len(same):
        raise DataError("No two images have the same label, so there is no same-label pair to compare with.")
    return same, different, exact


def _all_pairs(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"], code: Int[np.ndarray, " n"]
) -> Iterator[tuple[Float[np.ndarray, " s"], Float[np.ndarray, " t"]]]:
    for start in range(0, len(x), 256):
        rows = np.arange(start, min(start + 256, len(x)))
        products = x[rows] @ y[start:].T
        later = rows[:, None] < np.arange(start, len(x))[None]
        same = code[rows][:, None] == code[start:][None]
        yield products[later & same], products[later & ~same]


def _draw_same(code: Int[np.ndarray, " n"], m: int, rng: np.random.Generator) -> Int[np.ndarray, "2 m"]:
    """Draw m same-label pairs uniformly: a label in proportion to its pairs, then two of its images."""
    order, sizes = np.argsort(code, kind="stable"), np.bincount(code)
    first = np.cumsum(sizes) - sizes
    weights = sizes * (sizes - 1.0)
    if not weights.any():
        return np.empty((2, 0), dtype=np.int64)
    label = rng.choice(len(sizes), m, p=weights / weights.sum())
    a, b = rng.integers(sizes[label]), rng.integers(sizes[label] - 1)
    return order[first[label] + np.stack([a, b + (b >= a)])]


def _draw_different(code: Int[np.ndarray, " n"], m: int, rng: np.random.Generator) -> Int[np.ndarray, "2 m"]:
    """Draw m different-label pairs uniformly: a label in proportion to such pairs, one of its images, and another."""
    order, sizes = np.argsort(code, kind="stable"), np.bincount(code)
    first, weights = np.cumsum(sizes) - sizes, sizes * (len(code) - sizes).astype(float)
    label = rng.choice(len(sizes), m, p=weights / weights.sum())
    a, b = rng.integers(sizes[label]), rng.integers(len(code) - sizes[label])
    b += np.where(b >= first[label], sizes[label], 0)  # skip the label's own images
    return order[np.stack([first[label] + a, b])]


def _products(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"], a: Int[np.ndarray, " m"], b: Int[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    starts = range(0, len(a), 8192)
    parts = [np.einsum("nd,nd->n", x[a[i : i + 8192]], y[b[i : i + 8192]]) for i in starts]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)
