"""The result of attributing images to the labels of a gallery, in tables and in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stylesim.scoring.attribution.attribution_calibration import Calibration
from stylesim.scoring.attribution.attribution_verdict import VerdictRule
from stylesim.scoring.attribution.label_evidence import Evidence
from stylesim.scoring.attribution.negative_gaps import NegativeGaps

THIN = 5
"""If the median label has at most this many works, leaving one out makes attributions noticeably harder."""


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


def _listed(names: list[str]) -> str:
    return ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")
