"""Describe clusters: their most central images, and the tags that are more frequent in them than elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int


def central_images(
    x: Float[np.ndarray, "n d"], clusters: Int[np.ndarray, " n"], k: int = 8
) -> dict[int, Int[np.ndarray, " m"]]:
    """Return for each cluster the rows of the `k` images nearest in cosine to its mean, the nearest first."""
    central = {}
    for cluster in np.unique(clusters[clusters >= 0]).tolist():
        rows = np.flatnonzero(clusters == cluster)
        central[cluster] = rows[np.argsort(-(x[rows] @ x[rows].mean(axis=0)), kind="stable")[:k]]
    return central


def frequent_tags(
    clusters: Int[np.ndarray, " n"], tags: Sequence[Sequence[str]], *, alpha: float = 0.05
) -> pd.DataFrame:
    """Find tags that are more frequent in a cluster than among all other images.

    The p-value is that of Fisher's exact test, one-sided. It is corrected for all pairs of a cluster and a tag in it by
    the method of Benjamini and Hochberg (1995). Clusters were found without the tags, so that the test is fair; it says
    nothing about why a tag is frequent.

    Args:
        clusters: The cluster of each image; images in none (-1) count among the others.
        tags: The tags of each image.
        alpha: The largest expected share of false findings.

    Returns:
        Columns `cluster`, `tag`, `images` (in the cluster with the tag), `share`, `share_elsewhere`, `lift` (the ratio
        of both; infinite for a tag that is nowhere else) and `p_value` (corrected); by cluster, then p-value.
    """
    from scipy.stats import false_discovery_control, hypergeom

    sets = [set(of_image) for of_image in tags]
    totals, n = Counter(tag for of_image in sets for tag in of_image), len(sets)
    rows = []
    for cluster in np.unique(clusters[clusters >= 0]).tolist():
        inside = np.flatnonzero(clusters == cluster)
        size = len(inside)
        for tag, images in sorted(Counter(tag for row in inside for tag in sets[row]).items()):
            elsewhere = (totals[tag] - images) / (n - size) if n > size else float("nan")
            lift = images / size / elsewhere if elsewhere else float("inf")
            p = float(hypergeom.sf(images - 1, n, totals[tag], size))
            rows.append((cluster, tag, images, images / size, elsewhere, lift, p))
    table = pd.DataFrame(rows, columns=["cluster", "tag", "images", "share", "share_elsewhere", "lift", "p_value"])
    if len(table):
        table["p_value"] = false_discovery_control(table["p_value"])
    kept = table.loc[(table["p_value"] <= alpha) & (table["lift"] > 1)]
    return kept.sort_values(by=["cluster", "p_value", "tag"], kind="stable").reset_index(drop=True)
