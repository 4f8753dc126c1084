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
from stylesim.scoring.attribution.attribution import Attribution
from stylesim.scoring.attribution.attribution_calibration import Calibration, calibrate
from stylesim.scoring.attribution.attribution_verdict import VerdictRule
from stylesim.scoring.attribution.label_evidence import Evidence, Measure, Pool
from stylesim.scoring.attribution.label_ranking import LabelRanker
from stylesim.scoring.attribution.label_whitening import choose_shrinkage, fit_label_whitening
from stylesim.scoring.attribution.labelled_gallery import LabelledGallery, group_by_label
from stylesim.scoring.attribution.leave_one_out import leave_one_out
from stylesim.scoring.attribution.negative_gaps import NegativeGaps, negative_gaps
from stylesim.scoring.comparable_sets import check_comparable

MOST_NEAREST_WORKS = 10
"""The largest number of nearest works that is chosen unasked."""


class Database(Protocol):
    """Anything that can write its items as a descriptor set, such as a StyleDatabase."""

    def export(self, folder: Path) -> DescriptorSet:
        """Write all items to a new folder as a descriptor set."""
        ...


def attribute(
    queries: DescriptorSet | Database | Path | str,
    gallery: DescriptorSet | Database | Path | str,
    *,
    label: str = "*",
    measure: Measure = "csls_whitened",
    pool: Pool = "nearest",
    nearest_works: int | None = None,
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
        nearest_works: Number of nearest works of a label. None is the square root of the number of works that the
            median label has, at most 10. In any case it is at most one less than the median label has.
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
    measure: Measure = "csls_whitened",
    pool: Pool = "nearest",
    nearest_works: int | None = None,
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
        if number is not None and number < 1:
            raise ConfigError(f"{name} must be at least 1, got {number}.")
    rule = VerdictRule(alpha, confidence, closed)
    grouped = group_by_label(works, label, csls_k)
    used = _number_of_nearest_works(grouped, nearest_works)
    evidence = Evidence(measure, pool, used, choose_shrinkage(grouped, used, seed))
    loo = leave_one_out(grouped, evidence, distinct_content=distinct_content, works=calibration_works, seed=seed)
    calibration = calibrate(loo, len(grouped.names), seed)
    return Attributor(
        LabelRanker(
            grouped,
            fit_label_whitening(grouped, evidence.shrinkage),
            evidence,
            rule,
            calibration,
            distinct_content,
            ranks,
            seed,
        ),
        negative_gaps(grouped, None if measure == "cosine" else csls_k, seed),
        (works.meta.get("encoder") or {}).get("name", "an unknown encoder"),
    )


def _number_of_nearest_works(gallery: LabelledGallery, wanted: int | None) -> int:
    median = float(np.median(gallery.sizes))
    wanted = min(MOST_NEAREST_WORKS, round(median**0.5)) if wanted is None else wanted
    # A label whose work is left out for calibration should still have that many works.
    return max(1, min(wanted, int(median) - 1))


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
