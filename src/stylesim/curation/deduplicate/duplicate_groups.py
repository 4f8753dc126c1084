"""Find out which images are near-duplicates of another set's images, and which are near-duplicates of each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from stylesim.core.files import atomic_path
from stylesim.core.progress import progress
from stylesim.curation.deduplicate.disjoint_sets import DisjointSets

BINS = 50
"""Bins of the histogram of similarities."""
SAVE_EVERY = 1 << 31
"""Number of comparisons after which the state is saved again; they take some seconds."""


def rows_near_any(
    query: Float[np.ndarray, "n d"], gallery: Float[np.ndarray, "m d"], threshold: float
) -> Bool[np.ndarray, " n"]:
    """Return which rows of `query` have an inner product above the threshold with any row of `gallery`."""
    from stylesim.core.devices import pick_device
    from stylesim.retrieval.similar_pairs import pairs_above

    near = np.zeros(len(query), dtype=bool)
    if not len(query):  # an empty set of descriptors has no known width
        return near
    for pairs in pairs_above(query, gallery, threshold=threshold, device=pick_device()):
        near[pairs.left] = True
    return near


class DuplicateGroups(NamedTuple):
    """The connected components of the near-duplicate pairs."""

    labels: Int[np.ndarray, " n"]
    """For each row, the first row of its component."""
    similarities: Int[np.ndarray, " BINS"]
    """A histogram of the similarities of all pairs, in equal bins from the threshold to 1."""
    counts: dict[str, Any]


def group_duplicates(
    descriptors: Float[np.ndarray, "n d"],
    hashes: Int[np.ndarray, " n"],
    clean: Bool[np.ndarray, " n"],
    threshold: float,
    index: Literal["ivf", "hnsw", "pq"] | None,
    state_file: Path,
    show: bool,
) -> DuplicateGroups:
    """Return the connected components of all pairs above the threshold.

    Rows with the same perceptual hash are also considered as pairs. This adds nothing to an exact search, but finds
    some of the pairs that an index misses. The counts `same_hash` and `same_hash_confirmed` show how reliable the hash
    is.

    Args:
        descriptors: One per image, L2-normalised.
        hashes: The perceptual hash of each image (see `difference_hash`).
        clean: Which rows to consider: those of images that are not near an evaluation set.
        threshold: The inner product above which two images are near-duplicates.
        index: None for an exact search, otherwise the kind of approximate index.
        state_file: File for the state of an exact search, from which an interrupted run continues.
        show: Whether to show progress.

    Returns:
        The components, a histogram of the similarities, and counts for the summary of the stage.
    """
    from stylesim.core.devices import pick_device
    from stylesim.retrieval.similar_pairs import confirm_pairs, indexed_pairs, pairs_above

    sets, histogram, done = _load_state(state_file, len(descriptors))
    edges, candidates = np.linspace(threshold, 1, BINS + 1), _pairs_of_equal_hash(hashes, clean)
    left, right, _ = confirm_pairs(descriptors, descriptors, *candidates, threshold)
    sets.join(left, right)
    counts: dict[str, Any] = {"same_hash": len(candidates[0]), "same_hash_confirmed": len(left)}
    if index is not None and len(descriptors):
        indexed = indexed_pairs(descriptors, threshold=threshold, kind=index)
        counts["index_recall"] = indexed.recall
        blocks = [indexed.pairs]
    else:
        blocks = pairs_above(descriptors, threshold=threshold, start=done, device=pick_device())
    saved = done
    with progress("comparing", len(descriptors), unit="rows", show=show) as advance:
        advance(done)
        for pairs in blocks:
            both_clean = clean[pairs.left] & clean[pairs.right]
            sets.join(pairs.left[both_clean], pairs.right[both_clean])
            histogram += np.histogram(pairs.similarities[both_clean].clip(max=1), edges)[0]
            advance(pairs.done - done)
            rows_finished, done = pairs.done > done, pairs.done
            if index is None and rows_finished and (done - saved) * len(descriptors) > SAVE_EVERY:
                _save_state(state_file, sets, histogram, done)
                saved = done
    return DuplicateGroups(sets.labels(), histogram, counts | {"pairs": int(histogram.sum())})


def _load_state(file: Path, n: int) -> tuple[DisjointSets, Int[np.ndarray, " BINS"], int]:
    sets = DisjointSets(n)
    if not file.exists():
        return sets, np.zeros(BINS, dtype=np.int64), 0
    with np.load(file) as saved:
        sets.parents = saved["parents"]
        return sets, saved["histogram"], int(saved["done"])


def _save_state(file: Path, sets: DisjointSets, histogram: Int[np.ndarray, " BINS"], done: int) -> None:
    with atomic_path(file) as partial, partial.open("wb") as out:
        np.savez(out, parents=sets.parents, histogram=histogram, done=done)


def _pairs_of_equal_hash(
    hashes: Int[np.ndarray, " n"], clean: Bool[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Pair each clean row with the next one that has the same hash; such a chain connects all of them."""
    rows = np.flatnonzero(clean)
    rows = rows[np.argsort(hashes[rows], kind="stable")]
    same = hashes[rows[:-1]] == hashes[rows[1:]]
    return rows[:-1][same], rows[1:][same]
