"""Attribute images to the labels of a gallery: scores, intervals, p-values, probabilities and verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from stylesim.core.errors import ConfigError, DataError
from stylesim.evaluation.discrimination_gap import discrimination_gap
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.attribution.attribution_calibration import Calibration, calibrate
from stylesim.scoring.attribution.attribution_verdict import Candidate, Verdict, VerdictRule
from stylesim.scoring.attribution.evidence_intervals import score_interval
from stylesim.scoring.attribution.label_evidence import (
    Evidence,
    LabelScores,
    Measure,
    Pool,
    label_scores,
    work_similarities,
)
from stylesim.scoring.attribution.labelled_gallery import LabelledGallery, content_codes, group_by_label
from stylesim.scoring.attribution.leave_one_out import BLOCK_NUMBERS, leave_one_out, same_content
from stylesim.scoring.comparable_sets import check_comparable

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
GAP_RESAMPLES = 200


class Database(Protocol):
    """What can write its items as a descriptor set, such as a StyleDatabase."""

    def export(self, folder: Path) -> DescriptorSet: ...


@dataclass(frozen=True)
class NegativeGaps:
    """How many labels of the gallery are more similar to another label than to themselves.

    The rate grows with the number of labels and falls with the works of each, by arithmetic alone, so it is only
    meaningful together with these numbers.
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


@dataclass(frozen=True)
class Attribution:
    """Which labels the images resemble, how sure that is, and what the gallery says of its own reliability."""

    table: pd.DataFrame
    """A row per image and label, the best `ranks` labels of each image: `COLUMNS`. `low` and `high` bound the 95 %
    interval over the label's works. `margin` is the score minus the best other label's. `p_value`: see
    `Calibration.p_values`. `nearest` is the label's work with the largest cosine, `nearest_similarity`."""
    evidence: pd.DataFrame
    """For the rows of `table`: `<pool>_<measure>` for every pool and measure."""
    verdicts: pd.DataFrame
    """A row per image: `query, verdict` (attributed, ambiguous, none), `labels` (separated by `|`), `words`,
    `probability` that the best label is right if the image is by one of the labels, `p_value`, `identical` (the
    work that is the same image, or None) and `reason`."""
    calibration: Calibration
    gaps: NegativeGaps | None
    """None if fewer than two labels have two works."""
    per_label: pd.DataFrame
    """A row per label: `label, works, attributed` (works of the gallery that were attributed when left out), `recall`
    (share of them given this label) and `precision` (share of the works given this label that have it)."""
    settings: Evidence
    rule: VerdictRule
    gallery_works: int
    unlabelled: int
    """Images of the gallery without a label, which were left out."""
    encoder: str

    @property
    def notes(self) -> list[str]:
        """What limits the verdicts, in sentences."""
        notes, loo = [], self.calibration
        if not self.rule.closed and loo.smallest_p_value > self.rule.alpha * (1 + 1e-9):
            notes.append(
                f"With {loo.labels} labels, no p-value is below {loo.smallest_p_value:.3f}, so no image can be"
                f" attributed at alpha={self.rule.alpha:g}: add labels to the gallery, raise alpha, or, if every image"
                " is known to be by one of the labels, set closed=true."
            )
        if loo.model is None:
            notes.append(
                f"Only {int(loo.leave_one_out.closed.sum())} works could be attributed to their own label when left"
                " out, too few to tell how often an attribution is right. So no image is attributed. A label needs"
                " two works or more."
            )
        if len(thin := self.per_label.loc[self.per_label["works"] < 2, "label"].tolist()):
            notes.append(f"A label with a single work is never given as a name: {_listed(thin)}.")
        if len(same := self.verdicts.loc[self.verdicts["identical"].notna(), "query"].tolist()):
            notes.append(
                f"The gallery contains the image itself, or one with the same descriptor, for {len(same):,} images"
                f" ({_listed(same)}), so their attribution says nothing about style."
            )
        if self.unlabelled:
            notes.append(f"{self.unlabelled:,} images of the gallery have no label and were left out.")
        return notes

    def __str__(self) -> str:
        lines = [f"{row.query}: {row.words}" for row in self.verdicts.head(20).itertuples()]
        if (more := len(self.verdicts) - len(lines)) > 0:
            lines.append(f"... and {more:,} more")
        return "\n".join([*lines, "", self.summary, *self.notes])

    def _repr_html_(self) -> str:
        """Show the verdicts as a table in a notebook."""
        columns = ["query", "words", "probability", "p_value"]
        return self.verdicts[columns].to_html(index=False, escape=True, float_format="{:.3f}".format)

    @property
    def summary(self) -> str:
        """The result, and how far the gallery can be trusted, in a few sentences."""
        kinds = self.verdicts["verdict"].value_counts()
        counts = ", ".join(
            f"{kinds.get(kind, 0):,} {words}"
            for kind, words in (
                ("attributed", "attributed"),
                ("ambiguous", "ambiguous"),
                ("none", "none of these labels"),
            )
        )
        text = f"{len(self.verdicts):,} images and {self.calibration.labels:,} labels, by {self.encoder}: {counts}."
        closed = int(self.calibration.leave_one_out.closed.sum())
        if closed:
            text += (
                f" When left out of the gallery, {self.calibration.accuracy:.1%} of {closed:,} of its works were"
                f" attributed to their own label (chance {1 / self.calibration.labels:.1%})."
            )
        if self.calibration.model is not None:
            text += f" The probabilities are off by {self.calibration.ece:.3f} on average (held-out ECE)."
        return text + (f" {self.gaps}." if self.gaps else "")


def attribute(
    queries: DescriptorSet | Database | Path | str,
    gallery: DescriptorSet | Database | Path | str,
    *,
    label: str = "*",
    measure: Measure = "csls",
    pool: Pool = "nearest",
    nearest_works: int = 3,
    csls_k: int = 10,
    distinct_content: bool = False,
    ranks: int = 5,
    alpha: float = 0.1,
    confidence: float = 0.9,
    closed: bool = False,
    calibration_works: int = 2000,
    seed: int = 0,
) -> Attribution:
    """Attribute images to the labels of a gallery of works.

    Args:
        queries: The images: descriptors, or the folder of a descriptor set.
        gallery: The works: descriptors, the folder of a descriptor set, or a database.
        label: Which tags are labels: a glob such as "artist:*"; or "content" or "source".
        measure: Similarity of an image and a work; see `Evidence`.
        pool: Whether a label is scored by its nearest works or by all; see `Evidence`.
        nearest_works: How many works are the nearest ones.
        csls_k: Neighbours in a neighbourhood of CSLS.
        distinct_content: Leave out works that show the same content as the image, where both contents are known.
        ranks: Labels listed for each image.
        alpha: See `VerdictRule`.
        confidence: See `VerdictRule`.
        closed: See `VerdictRule`.
        calibration_works: Works of the gallery that are attributed for calibration, at most.
        seed: Seed of the bootstrap, and of the choice of works for calibration.

    Raises:
        DataError: If the gallery has fewer than two labels, a set is empty, or the sets were embedded by different
            encoders.
        ConfigError: If a number is out of range.
    """
    for name, number in {"nearest_works": nearest_works, "csls_k": csls_k, "ranks": ranks}.items():
        if number < 1:
            raise ConfigError(f"{name} must be at least 1, got {number}.")
    rule, evidence = VerdictRule(alpha, confidence, closed), Evidence(measure, pool, nearest_works)
    images, works = as_descriptor_set(queries), as_descriptor_set(gallery)
    check_comparable(images, works)
    grouped = group_by_label(works, label, csls_k)
    loo = leave_one_out(grouped, evidence, distinct_content=distinct_content, works=calibration_works, seed=seed)
    calibration = calibrate(loo, len(grouped.names), seed)
    blocks = list(_rank_blocks(images, works, grouped, evidence, rule, calibration, distinct_content, ranks, seed))
    table, all_evidence, verdicts = (pd.concat(parts, ignore_index=True) for parts in zip(*blocks, strict=True))
    return Attribution(
        table=table,
        evidence=all_evidence,
        verdicts=verdicts,
        calibration=calibration,
        gaps=negative_gaps(grouped, None if measure == "cosine" else csls_k, seed),
        per_label=_label_table(grouped, calibration),
        settings=evidence,
        rule=rule,
        gallery_works=len(grouped.vectors),
        unlabelled=grouped.unlabelled,
        encoder=(works.meta.get("encoder") or {}).get("name", "an unknown encoder"),
    )


def as_descriptor_set(source: DescriptorSet | Database | Path | str) -> DescriptorSet:
    """Return the descriptor set that a source is, lies in, or exports."""
    if isinstance(source, DescriptorSet):
        return source
    if isinstance(source, str | Path):
        return DescriptorSet.load(source)
    with TemporaryDirectory() as folder:
        exported = source.export(Path(folder) / "exported")
        return DescriptorSet(np.array(exported.descriptors), exported.items, exported.meta)


def negative_gaps(gallery: LabelledGallery, csls: int | None, seed: int) -> NegativeGaps | None:
    """Count the labels with a negative discrimination gap, by prototypes (CSD+, arXiv 2605.09030)."""
    labels = [gallery.names[code] for code in np.repeat(np.arange(len(gallery.names)), gallery.sizes)]
    gaps = discrimination_gap(
        gallery.vectors[gallery.works], labels, csls=csls, resamples=GAP_RESAMPLES, seed=seed
    ).dropna(subset="gap")
    if len(gaps) < 2:
        return None
    negative, robust = int((gaps["gap"] < 0).sum()), int((gaps["high"] < 0).sum())
    return NegativeGaps(len(gaps), negative, robust, float(gaps["images"].median()))


@dataclass(frozen=True)
class _Block:
    """A block of images compared with all works."""

    cosines: Float[np.ndarray, "b n"]
    allowed: Bool[np.ndarray, "b n"]
    similarities: Float[np.ndarray, "b n"]
    """By the measure of the score."""
    scores: Float[np.ndarray, "b l"]
    pooled: Float[np.ndarray, "b l"]
    """By the measure of the score."""
    evidence: dict[str, Float[np.ndarray, "b l"]]


def _rank_blocks(
    images: DescriptorSet,
    works: DescriptorSet,
    gallery: LabelledGallery,
    evidence: Evidence,
    rule: VerdictRule,
    calibration: Calibration,
    distinct_content: bool,
    ranks: int,
    seed: int,
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]]:
    if not len(images):
        raise DataError("There is no image to attribute: the queries are empty.")
    contents = content_codes(images.items["content"].tolist(), works.items["content"].tolist())
    row_of = {id: row for row, id in enumerate(gallery.ids)}
    gallery_contents = content_codes(
        works.items.set_index("id")["content"].reindex(gallery.ids).tolist(), works.items["content"].tolist()
    )
    gap, size = calibration.own_gap(rule.confidence), max(1, BLOCK_NUMBERS // len(gallery.vectors))
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        vectors = np.asarray(images.descriptors[part], dtype=np.float32)
        cosines = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ gallery.vectors.T
        allowed = np.ones_like(cosines, dtype=bool)
        if distinct_content:
            allowed &= ~same_content(contents[part], gallery_contents)
        for image, id in enumerate(images.ids[part]):
            if id in row_of:
                allowed[image, row_of[id]] = False  # the set is compared with itself
        block = _compare(cosines, allowed, gallery, evidence)
        yield _describe(block, images.ids[part], gallery, evidence, rule, calibration, gap, ranks, seed)


def _compare(
    cosines: Float[np.ndarray, "b n"], allowed: Bool[np.ndarray, "b n"], gallery: LabelledGallery, evidence: Evidence
) -> _Block:
    scores: dict[str, LabelScores] = {}
    similarities: dict[str, np.ndarray] = {}
    for measure in ("cosine", "csls", "csls_label_aware"):
        foreign = measure == "csls_label_aware"
        near = gallery.foreign_neighbourhoods if foreign else gallery.neighbourhoods
        values = work_similarities(cosines, allowed, measure, gallery.k, near.means)
        scores[measure] = label_scores(values, gallery, evidence.nearest_works)
        if measure == evidence.measure:
            similarities[measure] = values
    return _Block(
        cosines,
        allowed,
        similarities[evidence.measure],
        scores[evidence.measure].of(evidence.pool),
        scores[evidence.measure].pooled,
        {
            f"{pool}_{name}": of_measure.of(pool)
            for pool in ("pooled", "nearest")
            for name, of_measure in scores.items()
        },
    )


def _describe(
    block: _Block,
    ids: list[str],
    gallery: LabelledGallery,
    evidence: Evidence,
    rule: VerdictRule,
    calibration: Calibration,
    gap: float,
    ranks: int,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the rows of `Attribution.table`, `evidence` and `verdicts` for a block of images."""
    order = np.argsort(-block.scores, axis=1, kind="stable")
    sorted_scores = np.take_along_axis(block.scores, order, axis=1)
    if not np.isfinite(sorted_scores[:, 1]).all():
        raise DataError(
            f"{ids[int(np.argmin(np.isfinite(sorted_scores[:, 1])))]} can be compared with fewer than two labels,"
            " because the other works show the same content. Set distinct_content=false, or add works."
        )
    margins = np.where(np.arange(order.shape[1]) == 0, sorted_scores - sorted_scores[:, 1:2], 0)
    margins[:, 1:] = sorted_scores[:, 1:] - sorted_scores[:, :1]
    p_values = calibration.p_values(sorted_scores.ravel()).reshape(order.shape)
    model = calibration.model
    probability = None if model is None else model.probability(sorted_scores[:, 0], margins[:, 0])
    rows, evidence_rows, verdicts = [], [], []
    for image, id in enumerate(ids):
        average = float(block.pooled[image][np.isfinite(block.pooled[image])].mean())
        spread = _common_spread(block.similarities[image], gallery)
        shown = [
            position for position in range(min(ranks, order.shape[1])) if np.isfinite(sorted_scores[image, position])
        ]
        for position in shown:
            code, score = int(order[image, position]), float(sorted_scores[image, position])
            columns = gallery.works[gallery.columns_by_label[code]]
            columns = columns[block.allowed[image, columns]]
            low, high = score_interval(block.similarities[image, columns], score, average, spread, evidence, seed)
            nearest = columns[block.cosines[image, columns].argmax()]
            numbers = (score, low, high, margins[image, position], p_values[image, position], len(columns))
            nearest_work = (gallery.ids[nearest], float(block.cosines[image, nearest]))
            rows.append((id, position + 1, gallery.names[code], *numbers, *nearest_work))
            values = {name: float(table[image, code]) for name, table in block.evidence.items()}
            evidence_rows.append({"query": id, "label": gallery.names[code], **values})
        ranking = [
            Candidate(gallery.names[code], float(score), int(gallery.sizes[code]), float(p))
            for code, score, p in zip(order[image], sorted_scores[image], p_values[image], strict=True)
            if np.isfinite(score)
        ]
        chance = None if probability is None else float(probability[image])
        twin = int(np.where(block.allowed[image], block.cosines[image], -np.inf).argmax())
        identical = gallery.ids[twin] if block.cosines[image, twin] >= IDENTICAL else None
        verdicts.append(_verdict_row(id, rule.decide(ranking, chance, gap), chance, p_values[image, 0], identical))
    return pd.DataFrame(rows, columns=list(COLUMNS)), pd.DataFrame(evidence_rows), pd.DataFrame(verdicts)


def _verdict_row(
    id: str, verdict: Verdict, probability: float | None, p_value: float, identical: str | None
) -> dict[str, object]:
    return {
        "query": id,
        "verdict": verdict.kind,
        "labels": "|".join(verdict.labels),
        "words": verdict.words,
        "probability": np.nan if probability is None else probability,
        "p_value": p_value,
        "identical": identical,
        "reason": verdict.reason,
    }


def _common_spread(similarities: Float[np.ndarray, " n"], gallery: LabelledGallery) -> float:
    """Standard deviation of an image's similarities to the works of one label, pooled over the labels."""
    columns = similarities[gallery.works]
    usable = np.isfinite(columns)
    values = np.where(usable, columns, 0).astype(np.float64)
    counts = np.add.reduceat(usable, gallery.starts, dtype=np.int64)
    sums, squares = np.add.reduceat(values, gallery.starts), np.add.reduceat(values**2, gallery.starts)
    freedom = int((counts - 1).clip(min=0).sum())
    if not freedom:
        return float("nan")
    return float(np.sqrt(max(0.0, (squares - sums**2 / counts.clip(min=1)).sum() / freedom)))


def _label_table(gallery: LabelledGallery, calibration: Calibration) -> pd.DataFrame:
    loo = calibration.leave_one_out
    closed = loo.closed
    count = len(gallery.names)
    attributed = np.bincount(loo.label[closed], minlength=count)
    right = np.bincount(loo.label[closed], weights=loo.correct[closed], minlength=count)
    given = np.bincount(loo.best[closed], minlength=count)
    given_right = np.bincount(loo.best[closed], weights=loo.correct[closed], minlength=count)
    with np.errstate(invalid="ignore"):
        recall, precision = right / attributed, given_right / given
    return pd.DataFrame(
        {
            "label": gallery.names,
            "works": gallery.sizes,
            "attributed": attributed,
            "recall": recall,
            "precision": precision,
        }
    )


def _listed(names: list[str]) -> str:
    return ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")
