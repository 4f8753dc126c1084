"""A source for tests of the order in which samples are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stylesim.data.sample import Sample


class Numbers:
    """A source whose samples are named by their positions."""

    counts: tuple[int, ...] = ()

    def read(self, number: int, positions: Sequence[int]) -> Iterator[Sample]:
        return (Sample(f"{number}/{position}", b"") for position in positions)
