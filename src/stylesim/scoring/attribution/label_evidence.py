"""How similar images are to the works of each label: pooled and nearest works, by cosine and kinds of CSLS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from stylesim.scoring.attribution.labelled_gallery import LabelledGallery, Neighbourhoods

Measure = Literal["cosine", "csls", "csls_label_aware", "csls_whitened"]
Pool = Literal["nearest", "pooled"]


@dataclass(frozen=True)
class Evidence:
    """How the score of an image for a label is computed.

    Args:
        measure: Similarity s of an image q and a work w. "cosine"; "csls": 2 cos(q, w) - r(q) - r(w), where r is the
            mean cosine to the k nearest works (Conneau et al. 2018), so that works which are close to everything count
            less; "csls_label_aware": the same, but r(w) is taken over works of other labels, because in a small gallery
            many of a work's neighbours are of its own label (CSD+, arXiv 2605.09030); "csls_whitened": CSLS of whitened
            descriptors, in which directions count less that the works of one label differ in (see `LabelWhitening`).
        pool: "nearest": mean of s over the label's nearest works; "pooled": over all of its works.
        nearest_works: Number of nearest works. If a label has fewer, the image's mean pooled similarity over all labels
            stands in for each missing work.
        shrinkage: Shrinkage of the whitening; see `LabelWhitening`.
    """

    measure: Measure = "csls_whitened"
    pool: Pool = "nearest"
    nearest_works: int = 3
    shrinkage: float = 1.0

    def neighbourhoods(self, gallery: LabelledGallery) -> Neighbourhoods:
        """Return the neighbourhoods that r(w) is taken from."""
        return gallery.foreign_neighbourhoods if self.measure == "csls_label_aware" else gallery.neighbourhoods


@dataclass(frozen=True)
class LabelScores:
    """Scores of a block of images and all labels; -inf where a label has no work to compare with."""

    pooled: Float[np.ndarray, "b l"]
    nearest: Float[np.ndarray, "b l"]
    works: Int[np.ndarray, "b l"]
    """The number of works that were compared."""

    def of(self, pool: Pool) -> Float[np.ndarray, "b l"]:
        """Return the scores of one kind."""
        return self.nearest if pool == "nearest" else self.pooled


def work_similarities(
    cosines: Float[np.ndarray, "b n"],
    allowed: Bool[np.ndarray, "b n"],
    measure: Measure,
    k: int,
    r_works: Float[np.ndarray, "*b n"] | None,
) -> Float[np.ndarray, "b n"]:
    """Return the similarity of each image and work by a measure; -inf where they must not be compared.

    Args:
        cosines: Cosines of images and works.
        allowed: Which pairs may be compared.
        measure: See `Evidence`.
        k: Number of neighbours of an image that r(q) averages over.
        r_works: r(w) of each work, or for each image and work; not needed for cosine.
    """
    values = np.where(allowed, cosines, -np.inf)
    if measure == "cosine":
        return values
    k = min(k, values.shape[1])
    near = np.partition(values, values.shape[1] - k, axis=1)[:, -k:]
    usable = np.isfinite(near)
    r_images = np.where(usable, near, 0).sum(axis=1) / usable.sum(axis=1).clip(min=1)
    return 2 * values - r_images[:, None] - r_works


def label_scores(similarities: Float[np.ndarray, "b n"], gallery: LabelledGallery, nearest_works: int) -> LabelScores:
    """Pool the similarities to single works into one score per label.

    Args:
        similarities: From `work_similarities`; -inf is left out.
        gallery: The labels of the works.
        nearest_works: See `Evidence`.
    """
    columns = similarities[:, gallery.works]
    usable = np.isfinite(columns)
    works = np.add.reduceat(usable, gallery.starts, axis=1, dtype=np.int64)
    sums = np.add.reduceat(np.where(usable, columns, 0), gallery.starts, axis=1)
    missing = works == 0
    pooled = np.where(missing, -np.inf, sums / works.clip(min=1))
    average = np.where(missing, 0, pooled).sum(axis=1) / (~missing).sum(axis=1).clip(min=1)
    top = np.stack([_sum_of_largest(columns[:, part], nearest_works) for part in gallery.columns_by_label], axis=1)
    absent = nearest_works - works.clip(max=nearest_works)
    nearest = np.where(missing, -np.inf, (top + absent * average[:, None]) / nearest_works)
    return LabelScores(pooled, nearest, works)


def _sum_of_largest(values: Float[np.ndarray, "b w"], count: int) -> Float[np.ndarray, " b"]:
    """Return the sum of the `count` largest values of each row, or of those that are finite."""
    if values.shape[1] > count:
        values = np.partition(values, values.shape[1] - count, axis=1)[:, -count:]
    return np.where(np.isfinite(values), values, 0).sum(axis=1)
