"""Count the labels of a gallery that are more similar to another label than to themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stylesim.evaluation.discrimination_gap import discrimination_gap
from stylesim.scoring.attribution.labelled_gallery import LabelledGallery

GAP_RESAMPLES = 200


@dataclass(frozen=True)
class NegativeGaps:
    """How many labels of the gallery are more similar to another label than to themselves.

    For arithmetical reasons alone, the rate grows with the number of labels and falls with the number of works of each,
    so it is only meaningful together with these numbers.
    """

    labels: int
    """Labels with two works or more."""
    negative: int
    robust: int
    """Labels whose 95 % interval of the gap lies below 0."""
    median_works: float

    def __str__(self) -> str:
        return (
            f"{self.negative:,} of {self.labels:,} labels have a negative discrimination gap ({self.robust:,} of them"
            f" with a 95 % interval below 0), measured at {self.labels:,} labels with a median of"
            f" {self.median_works:g} works"
        )


def negative_gaps(gallery: LabelledGallery, csls: int | None, seed: int) -> NegativeGaps | None:
    """Count the labels with a negative discrimination gap, by prototypes (CSD+, arXiv 2605.09030)."""
    labels = [gallery.names[code] for code in np.repeat(np.arange(len(gallery.names)), gallery.sizes)]
    gaps = discrimination_gap(
        gallery.vectors[gallery.works], labels, csls=csls, resamples=GAP_RESAMPLES, seed=seed
    ).dropna(subset="gap")
    if len(gaps) < 2:
        return None
    negative, robust = int(np.sum(gaps["gap"] < 0)), int(np.sum(gaps["high"] < 0))
    return NegativeGaps(len(gaps), negative, robust, float(np.median(gaps["images"])))
