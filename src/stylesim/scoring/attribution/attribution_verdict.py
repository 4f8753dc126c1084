"""The verdict on an image: attributed, ambiguous between labels, or none of the gallery's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stylesim.core.errors import ConfigError

Kind = Literal["attributed", "ambiguous", "none"]
NAMED = 3
"""Number of labels that an ambiguous verdict names; further ones are only counted."""


class Candidate(NamedTuple):
    """One label of an image's ranking."""

    label: str
    score: float
    works: int
    p_value: float


class Verdict(NamedTuple):
    """The verdict on an image."""

    kind: Kind
    labels: list[str]
    """The attributed label, or all labels between which it is ambiguous, the best first; empty for none."""
    reason: str
    """Why, in a sentence."""

    @property
    def words(self) -> str:
        """The verdict in words."""
        if self.kind == "none":
            return "none of these"
        if self.kind == "attributed":
            return f"attributed to {self.labels[0]}"
        names = self.labels if len(self.labels) <= NAMED else self.labels[:NAMED]
        between = f"ambiguous between {', '.join(names[:-1])} and {names[-1]}"
        more = len(self.labels) - len(names)
        return f"{between} (and {more:,} more)" if more else between


@dataclass(frozen=True)
class VerdictRule:
    """When a label is named.

    Args:
        alpha: Largest p-value with which an image counts as being by one of the gallery's labels, in (0, 1). It is the
            share of images by none of the labels that may be attributed.
        confidence: Probability that the named label must have of being right, in (0, 1). Of the labels of an ambiguous
            verdict, one is right with this probability.
        closed: The images are known to be by one of the labels, so no verdict is "none of these".

    Raises:
        ConfigError: If a value is outside its range.
    """

    alpha: float = 0.1
    confidence: float = 0.9
    closed: bool = False

    def __post_init__(self) -> None:
        for name in ("alpha", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} must be between 0 and 1, got {getattr(self, name)}.")

    def decide(self, ranking: Sequence[Candidate], probability: float | None, own_gap: float) -> Verdict:
        """Decide on one image.

        Args:
            ranking: The labels, the best first; two or more.
            probability: Probability that the best label is right, if the image is by one of the labels; None if
                unknown.
            own_gap: How far below the best label the right one may be, from `Calibration.own_gap`.
        """
        best = ranking[0]
        # The tolerance admits 1 / (labels + 1) = alpha in floating point.
        if not self.closed and not best.p_value <= self.alpha * (1 + 1e-9):
            reason = f"Images by none of these labels score as high with p = {best.p_value:.3f}"
            return Verdict("none", [], f"{reason}, which is above alpha = {self.alpha:g}. The best is {best.label}.")
        alternatives = [c.label for c in ranking if c.score >= best.score - own_gap] if own_gap < float("inf") else []
        if len(alternatives) < 2:
            alternatives = [c.label for c in ranking[:2]]
        if probability is None:
            return Verdict("ambiguous", alternatives, "The gallery has too few works to tell how often it is right.")
        if best.works < 2:
            return Verdict("ambiguous", alternatives, f"{best.label} has a single work, which is too few to name it.")
        odds = f"The best label is right with probability {probability:.2f}"
        if probability < self.confidence:
            return Verdict("ambiguous", alternatives, f"{odds}, which is below confidence = {self.confidence:g}.")
        return Verdict("attributed", [best.label], f"{odds} if the image is by one of the gallery's labels.")
