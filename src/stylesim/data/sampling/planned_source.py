"""Read the samples of one worker of one rank in the order of their plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Int

from stylesim.data.sample import Sample
from stylesim.data.sampling.balance import Strategy
from stylesim.data.sampling.plan import Plan, Segment


class Source(Protocol):
    """Numbered shards of samples, any of which can be read."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of samples in each shard."""
        ...

    def read(self, number: int, positions: Sequence[int]) -> Iterator[Sample]:
        """Yield one sample for each of the positions (ascending) in shard `number`."""
        ...


class JoinedSource:
    """Several sources that are read as one."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self.counts = tuple(count for source in sources for count in source.counts)
        self._first = np.cumsum([0, *(len(source.counts) for source in sources)])

    def read(self, number: int, positions: Sequence[int]) -> Iterator[Sample]:
        """Yield one sample for each of the positions (ascending) in shard `number`, counted over all sources."""
        index = int(np.searchsorted(self._first, number, side="right")) - 1
        return self.sources[index].read(number - int(self._first[index]), positions)


class PlannedSource(NamedTuple):
    """A source, and the order in which it is read; it gives `plan.batch_size` samples to each micro-batch."""

    source: Source
    plan: Plan
    strategy: Strategy | None = None
    """Chooses the samples of a micro-batch by their tags, from those that the reader holds; None keeps the order."""


def read_in_order(planned: PlannedSource, epoch: int, rank: int, worker: int, skip: int = 0) -> Iterator[Sample]:
    """Yield the samples of one reader in one epoch in the order of its plan, without the first `skip` of them.

    The segments are read from front to back. Samples that are not due yet are kept in memory, at most as many as the
    plan's buffer. Shards of which all samples are skipped are not opened.
    """
    buffered, due = planned.plan.order(epoch, rank, worker, skip)
    segments = planned.plan.segments(epoch, rank, worker)
    reading = _read_segments(planned.source, segments, np.sort(buffered), skip)
    held: dict[int, Sample] = {}
    for position in due:
        while position not in held:
            read, sample = next(reading)
            held[read] = sample
        yield held.pop(position)


def read_balanced(
    planned: PlannedSource,
    epoch: int,
    rank: int,
    worker: int,
    columns_of: Callable[[Sample], list[int]],
    done: int = 0,
) -> Iterator[list[Sample]]:
    """Yield the samples of each micro-batch of one reader in one epoch, without the first `done` micro-batches.

    They are chosen, by the columns of their tags, from the window that the plan gives each micro-batch. The choice
    depends on that window alone, so a resumed stream reads one window and continues. Samples that cannot be read go
    with the first micro-batch whose window reaches them.
    """
    plan, micro_batches = planned.plan, planned.plan.micro_batches(epoch, worker)
    remaining = micro_batches[done:]
    if planned.strategy is None or not remaining:
        return
    reached = plan.window(micro_batches[done - 1]).stop if done else 0
    first = plan.window(remaining[0]).start
    reading = _read_segments(planned.source, plan.segments(epoch, rank, worker), np.empty(0, np.int64), first)
    held: dict[int, tuple[Sample, list[int]]] = {}
    for micro_batch in remaining:
        window = plan.window(micro_batch)
        unreadable = []
        held = {position: sample for position, sample in held.items() if position in window}
        for position, sample in islice(reading, window.stop - first):
            if sample.problem is None:
                held[position] = sample, columns_of(sample)
            elif position >= reached:
                unreadable.append(sample)
        first = reached = window.stop
        samples, tags = [sample for sample, _ in held.values()], [columns for _, columns in held.values()]
        rng = np.random.default_rng([3, plan.seed, micro_batch, rank])
        yield [samples[index] for index in planned.strategy(tags, plan.batch_size, rng)] + unreadable


def _read_segments(
    source: Source, segments: Sequence[Segment], buffered: Int[np.ndarray, " b"], skip: int
) -> Iterator[tuple[int, Sample]]:
    """Yield (position, sample) of joined segments.

    Reads only the positions that are in the buffer once `skip` samples have left it (`buffered`, sorted), and all
    positions after them.
    """
    begin, behind = 0, skip + len(buffered)
    for shard, start, stop in segments:
        end = begin + stop - start
        still_buffered = buffered[np.searchsorted(buffered, begin) : np.searchsorted(buffered, end)]
        wanted = [*still_buffered.tolist(), *range(max(begin, behind), end)]
        if wanted:
            samples = source.read(shard, [position - begin + start for position in wanted])
            yield from zip(wanted, samples, strict=True)
        begin = end
