"""Rank the labels of a gallery for each image, with intervals, p-values and verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from stylesim.core.errors import DataError
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.attribution.attribution_calibration import Calibration
from stylesim.scoring.attribution.attribution_verdict import Candidate, VerdictRule
from stylesim.scoring.attribution.evidence_intervals import score_interval
from stylesim.scoring.attribution.label_evidence import (
    Evidence,
    LabelScores,
    Measure,
    Pool,
    label_scores,
    work_similarities,
)
from stylesim.scoring.attribution.label_whitening import LabelWhitening
from stylesim.scoring.attribution.labelled_gallery import LabelledGallery
from stylesim.scoring.attribution.leave_one_out import BLOCK_NUMBERS

COLUMNS = (
    "query",
    "rank",
    "label",
    "score",
    "low",
    "high",
    "margin",
    "p_value",
    "works",
    "nearest",
    "nearest_similarity",
)
IDENTICAL = 1 - 1e-5
"""Cosine from which a work counts as the image itself."""


@dataclass(frozen=True)
class Ranking:
    """What is known of a block of images: the rows of `Attribution.table`, `evidence` and `verdicts`."""

    table: pd.DataFrame
    evidence: pd.DataFrame
    verdicts: pd.DataFrame


@dataclass(frozen=True)
class LabelRanker:
    """Ranks the labels of a gallery for images.

    Args:
        gallery: The works.
        whitening: The whitening of `csls_whitened`.
        evidence: How the score of a label is computed.
        rule: When a label is named.
        calibration: What scores mean in this gallery.
        distinct_content: Whether works that show the same content as an image are left out.
        ranks: Number of labels listed for each image.
        seed: Seed of the bootstrap.
    """

    gallery: LabelledGallery
    whitening: LabelWhitening
    evidence: Evidence
    rule: VerdictRule
    calibration: Calibration
    distinct_content: bool
    ranks: int
    seed: int

    @cached_property
    def whitened(self) -> LabelledGallery:
        """The works, whitened."""
        return self.gallery.transformed(self.whitening)

    def rank(self, images: DescriptorSet) -> Ranking:
        """Rank the labels for each image.

        Raises:
            DataError: If there is no image, or one that can be compared with fewer than two labels.
        """
        if not len(images):
            raise DataError("There is no image to attribute: the queries are empty.")
        size = max(1, BLOCK_NUMBERS // len(self.gallery.vectors))
        blocks = [
            _Block(self, images.select(range(start, min(start + size, len(images))))).describe()
            for start in range(0, len(images), size)
        ]
        return Ranking(*(pd.concat(parts, ignore_index=True) for parts in zip(*blocks, strict=True)))


class _Block:
    """A block of images compared with all works."""

    def __init__(self, ranker: LabelRanker, images: DescriptorSet) -> None:
        self.ranker, self.gallery, self.ids = ranker, ranker.gallery, images.ids
        vectors = np.asarray(images.descriptors, dtype=np.float32)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self.cosines: Float[np.ndarray, "b n"] = vectors @ self.gallery.vectors.T
        self.whitened_cosines = ranker.whitening(vectors) @ ranker.whitened.vectors.T
        self.allowed: Bool[np.ndarray, "b n"] = np.ones_like(self.cosines, dtype=bool)
        if ranker.distinct_content:
            self.allowed &= ~self.gallery.same_content(images.items["content"].tolist())
        row_of = {id: row for row, id in enumerate(self.gallery.ids)}
        for image, id in enumerate(self.ids):
            if id in row_of:
                self.allowed[image, row_of[id]] = False  # the set is compared with itself
        scores: dict[Measure, LabelScores] = {}
        for measure in get_args(Measure):
            similarities = self._similarities(measure)
            scores[measure] = label_scores(similarities, self.gallery, ranker.evidence.nearest_works)
            if measure == ranker.evidence.measure:
                self.similarities = similarities
        chosen = scores[ranker.evidence.measure]
        self.scores, self.pooled = chosen.of(ranker.evidence.pool), chosen.pooled
        self.evidence = {f"{pool}_{name}": s.of(pool) for pool in get_args(Pool) for name, s in scores.items()}
        self.order = np.argsort(-self.scores, axis=1, kind="stable")
        self.sorted_scores = np.take_along_axis(self.scores, self.order, axis=1)
        comparable = np.isfinite(self.sorted_scores[:, 1])
        if not comparable.all():
            raise DataError(
                f"{self.ids[int(comparable.argmin())]} can be compared with fewer than two labels, because the works of"
                " the others show the same content. Set distinct_content=false, or add works."
            )

    def _similarities(self, measure: Measure) -> Float[np.ndarray, "b n"]:
        whitened = measure == "csls_whitened"
        gallery, cosines = (self.ranker.whitened, self.whitened_cosines) if whitened else (self.gallery, self.cosines)
        near = gallery.foreign_neighbourhoods if measure == "csls_label_aware" else gallery.neighbourhoods
        return work_similarities(cosines, self.allowed, measure, gallery.k, near.means)

    def describe(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Return the rows of a `Ranking`."""
        p_values = self.ranker.calibration.p_values(self.sorted_scores.ravel()).reshape(self.order.shape)
        first, second = self.sorted_scores[:, 0], self.sorted_scores[:, 1]
        model = self.ranker.calibration.model
        probability = None if model is None else model.probability(first, first - second)
        rows, evidence, verdicts = [], [], []
        for image, id in enumerate(self.ids):
            for rank in range(min(self.ranker.ranks, self.order.shape[1])):
                if np.isfinite(self.sorted_scores[image, rank]):
                    label = self.gallery.names[self.order[image, rank]]
                    rows.append((id, rank + 1, label, *self._row(image, rank, p_values[image, rank])))
                    values = {name: float(s[image, self.order[image, rank]]) for name, s in self.evidence.items()}
                    evidence.append({"query": id, "label": label, **values})
            chance = None if probability is None else float(probability[image])
            verdicts.append({"query": id, **self._verdict(image, p_values[image], chance)})
        return pd.DataFrame(rows, columns=list(COLUMNS)), pd.DataFrame(evidence), pd.DataFrame(verdicts)

    def _row(self, image: int, rank: int, p_value: float) -> tuple[float | int | str, ...]:
        """Return the columns of a row of the table that follow `label`."""
        works = self.gallery.works[self.gallery.columns_by_label[self.order[image, rank]]]
        works = works[self.allowed[image, works]]
        score, other = self.sorted_scores[image, rank], self.sorted_scores[image, 1 if rank == 0 else 0]
        low, high = score_interval(
            self.similarities[image, works],
            float(score),
            float(self.pooled[image][np.isfinite(self.pooled[image])].mean()),
            self._common_spread[image],
            self.ranker.evidence,
            self.ranker.seed,
        )
        nearest = works[self.cosines[image, works].argmax()]
        numbers = (float(score), low, high, float(score - other), float(p_value), len(works))
        return (*numbers, self.gallery.ids[nearest], float(self.cosines[image, nearest]))

    def _verdict(self, image: int, p_values: Float[np.ndarray, " l"], probability: float | None) -> dict[str, object]:
        ranking = [
            Candidate(self.gallery.names[code], float(score), int(self.gallery.sizes[code]), float(p))
            for code, score, p in zip(self.order[image], self.sorted_scores[image], p_values, strict=True)
            if np.isfinite(score)
        ]
        rule = self.ranker.rule
        verdict = rule.decide(ranking, probability, self.ranker.calibration.own_gap(rule.confidence))
        twin = int(np.where(self.allowed[image], self.cosines[image], -np.inf).argmax())
        return {
            "verdict": verdict.kind,
            "labels": "|".join(verdict.labels),
            "words": verdict.words,
            "probability": np.nan if probability is None else probability,
            "p_value": float(p_values[0]),
            "identical": self.gallery.ids[twin] if self.cosines[image, twin] >= IDENTICAL else "",
            "reason": verdict.reason,
        }

    @cached_property
    def _common_spread(self) -> Float[np.ndarray, " b"]:
        """Standard deviation of each image's similarities to the works of one label, pooled over the labels."""
        columns = self.similarities[:, self.gallery.works].astype(np.float64)
        usable, starts = np.isfinite(columns), self.gallery.starts
        columns = np.where(usable, columns, 0)
        counts = np.add.reduceat(usable, starts, axis=1, dtype=np.int64)
        sums, squares = np.add.reduceat(columns, starts, axis=1), np.add.reduceat(columns**2, starts, axis=1)
        freedom = (counts - 1).clip(min=0).sum(axis=1)
        variance = (squares - sums**2 / counts.clip(min=1)).sum(axis=1).clip(min=0) / freedom.clip(min=1)
        return np.where(freedom > 0, np.sqrt(variance), np.nan)
