"""Counting what had to be skipped."""

from __future__ import annotations

from collections.abc import Iterable

from stylesim.core.errors import StylesimError

EXAMPLES = 20
"""Skipped samples that are named; beyond them only the count grows, so that a log of millions stays small."""


class DamageLog:
    """How many samples of how many were skipped, and the first of them with their reasons.

    `once`: a skipped sample that comes again counts no more. Where rare tags are drawn again and again, one broken
    picture would soon be the share that stops a run.
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
        """Count `good` samples, and those in `damaged` as (key or shard, reason)."""
        damaged = list(damaged)
        if self.once:
            damaged = [(where, why) for where, why in damaged if where not in self.known]
            self.known.update(where for where, _ in damaged)
        self.seen += good + len(damaged)
        self.skipped += len(damaged)
        self.examples += [(where, why) for where, why in damaged[: EXAMPLES - len(self.examples)]]

    def raise_if_over(self, share: float, *, min_seen: int = 1000) -> None:
        """Raise `StylesimError` if more than `share` of at least `min_seen` samples were skipped.

        Of fewer, one broken image would be a large share.
        """
        if self.skipped > share * max(self.seen, min_seen):
            raise StylesimError(
                f"{self.share:.1%} of the images are damaged, and data.max_damaged allows {share:.1%}: "
                f"mend them, or raise it.\n{self.summary()}"
            )

    def summary(self) -> str:
        """A line with the counts, and one for each example."""
        if not self.skipped:
            return f"none of {self.seen:,} images was damaged"
        lines = [f"{self.skipped:,} of {self.seen:,} images were damaged and skipped ({self.share:.2%})"]
        lines += [f"  {where}: {why}" for where, why in self.examples]
        if self.skipped > len(self.examples):
            lines.append(f"  ... and {self.skipped - len(self.examples):,} more")
        return "\n".join(lines)
