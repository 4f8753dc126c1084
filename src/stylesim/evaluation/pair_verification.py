"""Pair verification: how well similarity tells pairs of one label from pairs of two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stylesim.core.errors import StylesimError
from stylesim.evaluation.labels import encode_labels
from stylesim.retrieval.readouts import csls_within

PAIRS = 5_000_000
"""Pairs that are compared at most; beyond, a sample of as many, half of them of one label."""


class PairVerification(NamedTuple):
    """How well similarity tells pairs of one label from pairs of two."""

    auc: float
    """The chance that a pair of one label is more alike than a pair of two; ties count half."""
    same: int
    different: int
    """Pairs of either kind that were compared."""
    exact: bool
    """Whether these are all there are, and no sample."""


def verification_auc(
    descriptors: Float[np.ndarray, "n d"],
    labels: Sequence[str],
    *,
    csls: int | None = None,
    pairs: int = PAIRS,
    seed: int = 0,
) -> PairVerification:
    """Pair verification: the area under the ROC of similarity as a sign of one label.

    Over all pairs of images where there are at most `pairs`, over a random sample of as many otherwise. `csls`: with
    the similarities of that read-out. Raises StylesimError where all pairs are of one kind.
    """
    same, different, exact = _pair_similarities(descriptors, labels, pairs, seed, csls)
    same = np.sort(same)
    below, not_above = np.searchsorted(same, different, "left"), np.searchsorted(same, different, "right")
    auc = 1 - (below + not_above).mean() / 2 / len(same)
    return PairVerification(float(auc), len(same), len(different), exact)


def _pair_similarities(
    descriptors: Float[np.ndarray, "n d"], labels: Sequence[str], pairs: int, seed: int, csls: int | None = None
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " t"], bool]:
    """Similarities of pairs of one label and of two, and whether these are all pairs."""
    x, _, code = encode_labels(descriptors, labels)
    tables = csls_within(x, csls) if csls else (x, x)
    exact = len(x) * (len(x) - 1) // 2 <= pairs
    if exact:
        parts = list(_all_pairs(*tables, code))
        same, different = (np.concatenate(kind) for kind in zip(*parts, strict=True))
    else:
        rng = np.random.default_rng(seed)
        drawn = (_same_pairs(code, pairs // 2, rng), _different_pairs(code, pairs // 2, rng))
        same, different = (_products(*tables, *kind) for kind in drawn)
    if not len(same):
        raise StylesimError("No two images have the same label, so pairs of one label cannot be told from others.")
    return same, different, exact


def _all_pairs(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"], code: Int[np.ndarray, " n"]
) -> Iterator[tuple[Float[np.ndarray, " s"], Float[np.ndarray, " t"]]]:
    for start in range(0, len(x), 256):
        rows = np.arange(start, min(start + 256, len(x)))
        products = x[rows] @ y[start:].T
        later = rows[:, None] < np.arange(start, len(x))[None]
        alike = code[rows][:, None] == code[start:][None]
        yield products[later & alike], products[later & ~alike]


def _same_pairs(code: Int[np.ndarray, " n"], m: int, rng: np.random.Generator) -> Int[np.ndarray, "2 m"]:
    order, sizes = np.argsort(code, kind="stable"), np.bincount(code)
    first = np.cumsum(sizes) - sizes
    weights = sizes * (sizes - 1.0)
    if not weights.any():
        return np.empty((2, 0), dtype=np.int64)
    label = rng.choice(len(sizes), m, p=weights / weights.sum())
    a, b = rng.integers(sizes[label]), rng.integers(sizes[label] - 1)
    return order[first[label] + np.stack([a, b + (b >= a)])]


def _different_pairs(code: Int[np.ndarray, " n"], m: int, rng: np.random.Generator) -> Int[np.ndarray, "2 m"]:
    """Uniformly: a label by how many such pairs it has, one of its images, and one of all the others."""
    order, sizes = np.argsort(code, kind="stable"), np.bincount(code)
    first, weights = np.cumsum(sizes) - sizes, sizes * (len(code) - sizes).astype(float)
    label = rng.choice(len(sizes), m, p=weights / weights.sum())
    a, b = rng.integers(sizes[label]), rng.integers(len(code) - sizes[label])
    b += np.where(b >= first[label], sizes[label], 0)  # past the label's own images
    return order[np.stack([first[label] + a, b])]


def _products(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"], a: Int[np.ndarray, " m"], b: Int[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    starts = range(0, len(a), 8192)
    parts = [np.einsum("nd,nd->n", x[a[i : i + 8192]], y[b[i : i + 8192]]) for i in starts]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)
