"""Attribute images to the labels of a gallery: scores, intervals, p-values, probabilities and verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
import pandas as pd

from stylesim.core.errors import ConfigError
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.attribution.attribution_calibration import Calibration, calibrate
from stylesim.scoring.attribution.attribution_verdict import VerdictRule
from stylesim.scoring.attribution.label_evidence import Evidence, Measure, Pool
from stylesim.scoring.attribution.label_ranking import LabelRanker
from stylesim.scoring.attribution.labelled_gallery import LabelledGallery, group_by_label
from stylesim.scoring.attribution.leave_one_out import leave_one_out
from stylesim.scoring.attribution.negative_gaps import NegativeGaps, negative_gaps
from stylesim.scoring.comparable_sets import check_comparable

THIN = 5
"""If the median label has at most this many works, leaving one out makes attributions noticeably harder."""


class Database(Protocol):
    """Anything that can write its items as a descriptor set, such as a StyleDatabase."""

    def export(self, folder: Path) -> DescriptorSet:
        """Write all items to a new folder as a descriptor set."""
        ...


@dataclass(frozen=True)
class Attribution:
    """Which labels the images resemble, how sure that is, and how reliable attributions to this gallery are."""

    table: pd.DataFrame
    """A row per image and label, the best `ranks` labels of each image, with the columns `label_ranking.COLUMNS`.
    `low` and `high` bound the 95 % interval over the label's works. `margin` is the score minus the best other
    label's. `p_value`: see `Calibration.p_values`. `nearest` is the label's work with the largest cosine,
    `nearest_similarity`."""
    evidence: pd.DataFrame
    """For the rows of `table`: `<pool>_<measure>` for every pool and measure."""
    verdicts: pd.DataFrame
    """A row per image: `query, verdict` (attributed, ambiguous, none), `labels` (separated by `|`), `words`,
    `probability` that the best label is right if the image is by one of the labels, `p_value`, `identical` (the
    work that is the same image, or empty) and `reason`."""
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
    """Number of images of the gallery without a label, which were left out."""
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
        elif (median := float(np.median(self.per_label["works"]))) <= THIN:
            notes.append(
                f"The median label has {median:g} works. The probabilities were measured with one work fewer, so they"
                " are probably too low."
            )
        if len(thin := self.per_label.loc[self.per_label["works"] < 2, "label"].tolist()):
            notes.append(f"A label with a single work is never named: {_listed(thin)}.")
        if len(same := self.verdicts.loc[self.verdicts["identical"] != "", "query"].tolist()):
            notes.append(
                f"The gallery contains the image itself, or one with the same descriptor, for {len(same):,} images"
                f" ({_listed(same)}), so their attribution says nothing about style."
            )
        if self.unlabelled:
            notes.append(f"{self.unlabelled:,} images of the gallery have no label and were left out.")
        return notes

    def __str__(self) -> str:
        lines = [f"{row['query']}: {row['words']}" for row in self.verdicts.head(20).to_dict("records")]
        if (more := len(self.verdicts) - len(lines)) > 0:
            lines.append(f"... and {more:,} more")
        return "\n".join([*lines, "", self.summary, *self.notes])

    def _repr_html_(self) -> str:
        """Show the verdicts as a table in a notebook."""
        columns = ["query", "words", "probability", "p_value"]
        return self.verdicts[columns].to_html(index=False, escape=True, float_format="{:.3f}".format)

    @property
    def counts(self) -> str:
        """The number of images with each verdict, in a sentence."""
        kinds = self.verdicts["verdict"].value_counts()
        words = {"attributed": "attributed", "ambiguous": "ambiguous", "none": "by none of the labels"}
        counts = ", ".join(f"{kinds.get(kind, 0):,} {word}" for kind, word in words.items())
        images = "1 image" if len(self.verdicts) == 1 else f"{len(self.verdicts):,} images"
        return f"{images} and {self.calibration.labels:,} labels, by {self.encoder}: {counts}."

    @property
    def reliability(self) -> str:
        """How often the gallery's own attributions are right, in a few sentences."""
        text, calibration = "", self.calibration
        if closed := int(calibration.leave_one_out.closed.sum()):
            text += (
                f"When left out of the gallery, {calibration.accuracy:.1%} of {closed:,} of its works were attributed"
                f" to their own label (chance {1 / calibration.labels:.1%}). "
            )
        if calibration.model is not None:
            text += (
                f"Probabilities are off by {calibration.ece:.3f} on average (expected calibration error, held out). "
            )
        return text + (f"{self.gaps}." if self.gaps else "")

    @property
    def summary(self) -> str:
        """The result, and how far the gallery can be trusted, in a few sentences."""
        return f"{self.counts} {self.reliability}".strip()


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
        nearest_works: Number of nearest works of a label; at most one less than the median label has.
        csls_k: Number of neighbours in CSLS.
        distinct_content: Leave out works that show the same content as the image, where both contents are known.
        ranks: Number of labels listed for each image.
        alpha: See `VerdictRule`.
        confidence: See `VerdictRule`.
        closed: See `VerdictRule`.
        calibration_works: Largest number of works of the gallery that are attributed for calibration.
        seed: Seed of the bootstrap, and of the choice of works for calibration.

    Raises:
        DataError: If the gallery has fewer than two labels, a set is empty, or the sets were embedded by different
            encoders.
        ConfigError: If a number is out of range.
    """
    images, works = as_descriptor_set(queries), as_descriptor_set(gallery)
    check_comparable(images, works)
    attributor = fit_attributor(
        works,
        label=label,
        measure=measure,
        pool=pool,
        nearest_works=nearest_works,
        csls_k=csls_k,
        distinct_content=distinct_content,
        ranks=ranks,
        alpha=alpha,
        confidence=confidence,
        closed=closed,
        calibration_works=calibration_works,
        seed=seed,
    )
    return attributor.attribute(images)


@dataclass(frozen=True)
class Attributor:
    """Attributes images to the labels of a gallery, which is calibrated once; `fit_attributor` makes one."""

    ranker: LabelRanker
    gaps: NegativeGaps | None
    encoder: str

    def attribute(self, images: DescriptorSet) -> Attribution:
        """Attribute images, whose descriptors must be of the encoder of the gallery."""
        ranker, ranking = self.ranker, self.ranker.rank(images)
        return Attribution(
            table=ranking.table,
            evidence=ranking.evidence,
            verdicts=ranking.verdicts,
            calibration=ranker.calibration,
            gaps=self.gaps,
            per_label=_label_table(ranker.gallery, ranker.calibration),
            settings=ranker.evidence,
            rule=ranker.rule,
            gallery_works=len(ranker.gallery.vectors),
            unlabelled=ranker.gallery.unlabelled,
            encoder=self.encoder,
        )


def fit_attributor(
    works: DescriptorSet,
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
) -> Attributor:
    """Calibrate attributions to a gallery on its own works. For the arguments and errors see `attribute`."""
    for name, number in {"nearest_works": nearest_works, "csls_k": csls_k, "ranks": ranks}.items():
        if number < 1:
            raise ConfigError(f"{name} must be at least 1, got {number}.")
    rule = VerdictRule(alpha, confidence, closed)
    grouped = group_by_label(works, label, csls_k)
    # A label whose work is left out for calibration should still have that many works.
    most = max(1, int(np.median(grouped.sizes)) - 1)
    evidence = Evidence(measure, pool, min(nearest_works, most))
    loo = leave_one_out(grouped, evidence, distinct_content=distinct_content, works=calibration_works, seed=seed)
    calibration = calibrate(loo, len(grouped.names), seed)
    return Attributor(
        LabelRanker(grouped, evidence, rule, calibration, distinct_content, ranks, seed),
        negative_gaps(grouped, None if measure == "cosine" else csls_k, seed),
        (works.meta.get("encoder") or {}).get("name", "an unknown encoder"),
    )


def as_descriptor_set(source: DescriptorSet | Database | Path | str) -> DescriptorSet:
    """Return a source as a descriptor set: the set itself, the one in its folder, or the one that it exports."""
    if isinstance(source, DescriptorSet):
        return source
    if isinstance(source, str | Path):
        return DescriptorSet.load(source)
    with TemporaryDirectory() as folder:
        exported = source.export(Path(folder) / "exported")
        return DescriptorSet(np.array(exported.descriptors), exported.items, exported.meta)


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
