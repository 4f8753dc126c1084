"""Count the samples that had to be skipped."""

from __future__ import annotations

from collections.abc import Iterable

from stylesim.core.errors import DataError

EXAMPLES = 20
"""Number of skipped samples whose names are kept; the others are only counted, to keep the log small."""


class DamageLog:
    """How many samples were skipped, and the first of them with their reasons.

    Args:
        once: Whether a sample that is skipped again counts only once. Where images of rare tags are drawn often, a
            single broken image could otherwise stop a run.
    """

    def __init__(self, once: bool = False) -> None:
        self.once = once
        self.known: set[str] = set()
        self.seen = 0
        self.skipped = 0
        self.examples: list[tuple[str, str]] = []

    @property
    def share(self) -> float:
        """Skipped samples as a share of all, in [0, 1]."""
        return self.skipped / self.seen if self.seen else 0.0

    def add(self, good: int, damaged: Iterable[tuple[str, str]] = ()) -> None:
        """Count `good` samples, and the damaged ones, given as (key or shard, reason)."""
        damaged = list(damaged)
        if self.once:
            damaged = [(key, reason) for key, reason in damaged if key not in self.known]
            self.known.update(key for key, _ in damaged)
        self.seen += good + len(damaged)
        self.skipped += len(damaged)
        self.examples += damaged[: EXAMPLES - len(self.examples)]

    def raise_if_over(self, share: float, *, min_seen: int = 1000) -> None:
        """Stop a run in which too many samples were skipped.

        Args:
            share: Share of skipped samples, in [0, 1], that is accepted.
            min_seen: Smallest number of samples that the share refers to. Early in a run, one broken image would
                otherwise be a large share.

        Raises:
            DataError: If more samples were skipped.
        """
        if self.skipped > share * max(self.seen, min_seen):
            raise DataError(
                f"{self.share:.1%} of the images are damaged, but data.max_damaged allows {share:.1%}: "
                f"repair or remove them, or raise data.max_damaged.\n{self.summary()}"
            )

    def summary(self) -> str:
        """Return a line with the counts, and one for each example."""
        if not self.skipped:
            return f"None of {self.seen:,} images was damaged."
        lines = [f"{self.skipped:,} of {self.seen:,} images were damaged and skipped ({self.share:.2%}):"]
        lines += [f"  {key}: {reason}" for key, reason in self.examples]
        if self.skipped > len(self.examples):
            lines.append(f"  ... and {self.skipped - len(self.examples):,} more")
        return "\n".join(lines)
