"""The result of ranking candidates by style, as tables and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
from markupsafe import escape

from stylesim.scoring.gss import ReferenceSimilarities

ALPHA = 0.05
"""Largest corrected p-value at which a candidate counts as ahead of the next one."""
SHOWN = 12
"""Number of candidates that the text lists."""


@dataclass(frozen=True)
class CandidateRanking:
    """Candidates in the order of their style similarity to the reference works."""

    table: pd.DataFrame
    """A row per candidate, the best first: `rank, candidate, images`; `style_similarity` with its 95 % interval over
    the images (`low, high`); `first`, how often it comes first when images are resampled; `distance` (mean distance
    of two of its images), `vendi`, `repeats` (see `Diversity`) and `collapsed`; `in_reference`, the share of its images
    that are files of the reference; `copy_rate`, the share that the copy check flags (NaN if it is not available); for
    each measure of content `<measure>, <measure>_low, <measure>_high, <measure>_mismatched`; the scale:
    `works_same, works_different, works_others, works_distance, works_vendi`; and the encoders behind the numbers."""
    comparisons: pd.DataFrame
    """A row per pair of neighbours in the ranking; see `compare_neighbours`."""
    per_image: pd.DataFrame
    """A row per image: `candidate, id, name, style_similarity`, and the measures of content."""
    reference_similarities: ReferenceSimilarities
    """The similarities of the works to each other."""
    encoder: str
    works: int
    vendi_images: int
    """Number of images that the Vendi scores were measured at."""
    content_names: Mapping[str, str] = field(default_factory=dict)
    """The network behind each measure of content."""
    notes: list[str] = field(default_factory=list)
    """What limits the ranking, in sentences."""

    @property
    def order(self) -> list[str]:
        """The names of the candidates, the best first."""
        return self.table["candidate"].tolist()

    @property
    def summary(self) -> str:
        """The result in a few sentences."""
        best = self.table.iloc[0]
        count = "1 candidate" if len(self.table) == 1 else f"{len(self.table):,} candidates"
        text = (
            f"{count} and {self.works:,} reference works, by {self.encoder}. Closest in style:"
            f" {best['candidate']}, {best['style_similarity']:.3f}"
        )
        text += f" (95 % {best['low']:.3f} to {best['high']:.3f})" if best["low"] == best["low"] else ""
        text += ", which has collapsed" if best["collapsed"] else ""
        return f"{text}. {self.scale_words} {self._ties()}".strip()

    @property
    def scale_words(self) -> str:
        """What the works' own similarities are, in a sentence."""
        same, different, others = self.reference_similarities
        parts = []
        if len(same):
            parts.append(f"{same.mean():.3f} to works of the same style")
        if len(different):
            parts.append(f"{different.mean():.3f} to works of other styles")
        if not parts and len(others):
            parts.append(f"{others.mean():.3f} to each other")
        return f"For scale, works have a similarity of {' and of '.join(parts)}." if parts else ""

    def _ties(self) -> str:
        if self.comparisons.empty:
            return ""
        first = self.comparisons.iloc[0]
        ahead = first["p_corrected"] <= ALPHA
        words = "is ahead of" if ahead else "cannot be told apart from"
        how = "on the same prompts" if first["paired"] else "not paired: too few images have the same names"
        p = "p < 0.001" if first["p_corrected"] < 0.001 else f"p = {first['p_corrected']:.3f}"
        difference = f"difference {first['difference']:+.3f}"
        return f"{first['candidate']} {words} {first['next']} ({difference}, corrected {p}, {how})."

    def __str__(self) -> str:
        columns = ["rank", "candidate", "images", "style_similarity", "low", "high", "first", "collapsed"]
        columns += [name for name in self.content_names if name in self.table]
        shown = pd.DataFrame(self.table[columns]).head(SHOWN).to_string(index=False, float_format=lambda x: f"{x:.3f}")
        more = len(self.table) - SHOWN
        return "\n".join([shown, *([f"... and {more:,} more"] if more > 0 else []), "", self.summary, *self.notes])

    def _repr_html_(self) -> str:
        """Show the ranking as a table in a notebook."""
        heading = {"style_similarity": f"style similarity, {self.encoder}", "first": "comes first"}
        heading |= {name: f"{name.replace('_', ' ')}, {by}" for name, by in self.content_names.items()}
        columns = ["rank", "candidate", "images", "style_similarity", "low", "high", "first", "distance", "collapsed"]
        columns += list(self.content_names)
        table = pd.DataFrame(self.table[columns]).rename(columns=heading)
        words = " ".join([self.summary, *self.notes])
        return f"<p>{escape(words)}</p>" + table.to_html(index=False, escape=True, float_format="{:.3f}".format)
