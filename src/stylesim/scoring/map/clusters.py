"""Divide descriptors into clusters, and compare clusters with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stylesim.core.errors import ConfigError
from stylesim.scoring.map.layout import MEASURED

Algorithm = Literal["kmeans", "hdbscan"]


class Agreement(NamedTuple):
    """Adjusted mutual information of clusters and labels: 1 if they are the same, about 0 by chance."""

    ami: float
    shuffled: float
    """The same after the labels were shuffled, as a control."""
    images: int
    """Number of images that have a label."""


def find_clusters(
    x: Float[np.ndarray, "n d"],
    algorithm: Algorithm = "kmeans",
    *,
    number: int | None = None,
    largest: int = 20,
    min_size: int = 10,
    seed: int = 0,
) -> Int[np.ndarray, " n"]:
    """Divide unit descriptors into clusters.

    Args:
        x: Descriptors of unit length.
        algorithm: k-means, or HDBSCAN (Campello et al. 2013), which leaves images out that are in no dense region.
        number: Number of clusters of k-means; None takes the number with the largest silhouette, from 2 to `largest`.
        largest: The largest number that is tried.
        min_size: The smallest cluster of HDBSCAN.
        seed: Seed of k-means.

    Returns:
        The cluster of each image, the largest cluster being 0; -1 is in none.

    Raises:
        ConfigError: If `number` is not between 2 and the number of images, or HDBSCAN is given a number.
    """
    from sklearn.cluster import HDBSCAN, KMeans

    if algorithm == "hdbscan":
        if number is not None:
            raise ConfigError(
                f"HDBSCAN finds the number of clusters itself, got {number}. Leave it out, or use kmeans."
            )
        hdbscan = HDBSCAN(min_cluster_size=min(min_size, len(x)), copy=True)  # type: ignore[arg-type]
        return _by_size(hdbscan.fit_predict(x))
    if number is not None and not 2 <= number <= len(x):
        raise ConfigError(f"The number of clusters must be from 2 to the number of images, {len(x)}, got {number}.")
    numbers = range(2, min(largest, len(x) - 1) + 1) if number is None else [number]
    found = [KMeans(k, n_init=4, random_state=seed).fit_predict(x) for k in numbers]  # type: ignore[arg-type]
    return _by_size(found[0] if len(found) == 1 else max(found, key=lambda clusters: silhouette(x, clusters, seed)))


def silhouette(x: Float[np.ndarray, "n d"], clusters: Int[np.ndarray, " n"], seed: int = 0) -> float:
    """Compute the mean silhouette (Rousseeuw 1987) under cosine distance; NaN if there are not two clusters.

    Images in no cluster are left out; of more than `MEASURED` images, that many are chosen at random.
    """
    from sklearn.metrics import silhouette_score

    rows = np.flatnonzero(clusters >= 0)
    if len(rows) > MEASURED:
        rows = np.random.default_rng(seed).choice(rows, MEASURED, replace=False)
    if not 2 <= len(np.unique(clusters[rows])) < len(rows):
        return float("nan")
    return float(silhouette_score(x[rows], clusters[rows], metric="cosine"))


def agreement(clusters: Int[np.ndarray, " n"], labels: Sequence[object], *, seed: int = 0) -> Agreement:
    """Compare clusters with labels, or with other clusters (Vinh et al. 2010).

    Args:
        clusters: The cluster of each image. Images in no cluster (-1) count as a group of their own.
        labels: The label of each image; None leaves it out.
        seed: Seed of the shuffle.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    rows = [row for row, label in enumerate(labels) if label is not None]
    if not rows:
        return Agreement(float("nan"), float("nan"), 0)
    codes = np.unique([str(labels[row]) for row in rows], return_inverse=True)[1]
    shuffled = np.random.default_rng(seed).permutation(codes)
    of = clusters[rows]
    return Agreement(
        float(adjusted_mutual_info_score(codes, of)), float(adjusted_mutual_info_score(shuffled, of)), len(rows)
    )


def _by_size(clusters: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Number clusters by descending size; equal sizes keep their order."""
    names, sizes = np.unique(clusters[clusters >= 0], return_counts=True)
    renumbered = np.full(len(clusters), -1, dtype=np.int64)
    for new, old in enumerate(names[np.argsort(-sizes, kind="stable")]):
        renumbered[clusters == old] = new
    return renumbered
