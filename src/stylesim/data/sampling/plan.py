"""Which image stands where: the order of a stream as a pure function, known before a byte is read.

The shards of an epoch, permuted, lie end to end as a line of samples. The line is cut into one stretch per
reader (a worker of a rank), as long as the micro-batches that reader serves; so any number of shards serves
any number of readers, and all ranks get equally many batches. Within its stretch a reader shuffles through
a buffer, whose draws are made here, on numbers, so that a stream can be entered anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from stylesim.core.errors import StylesimError

_CHUNK = 1 << 13  # draws that are made at once


class Stretch(NamedTuple):
    """Samples `start` (included) to `stop` (excluded) of shard number `shard`."""

    shard: int
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """The order of one line of shards.

    Micro-batches are counted per rank over the whole run: micro-batch `m` belongs to epoch `m // steps`,
    and to worker `m % workers`, as a `DataLoader` asks its workers in turn.

    Raises `StylesimError` if one epoch does not fill one global batch.
    """

    counts: tuple[int, ...]
    """Samples of each shard."""
    batch: int
    """Samples of a micro-batch on one rank."""
    world: int = 1
    """Ranks; a global batch holds `batch * world` samples."""
    workers: int = 1
    """Reading workers of each rank."""
    seed: int = 0
    buffer: int = 0
    """Samples that a reader may hold, to shuffle or to choose among; under 2, nothing is shuffled but the shards."""

    def __post_init__(self) -> None:
        if self.steps == 0:
            raise StylesimError(
                f"{sum(self.counts)} images do not fill one global batch of {self.batch} for each of "
                f"{self.world} processes: lower the batch size, use fewer processes, or add images"
            )

    @property
    def steps(self) -> int:
        """Micro-batches of one epoch, the same on each rank."""
        return sum(self.counts) // (self.batch * self.world)

    @property
    def dropped(self) -> int:
        """Samples that an epoch leaves out (other ones each epoch), fewer than one global batch."""
        return sum(self.counts) % (self.batch * self.world)

    def served(self, epoch: int, worker: int) -> range:
        """The micro-batches of `epoch` that `worker` serves, counted from the start of the run."""
        first = epoch * self.steps
        return range(first + (worker - first) % self.workers, first + self.steps, self.workers)

    def stretches(self, epoch: int, rank: int, worker: int) -> list[Stretch]:
        """What this reader reads in `epoch`, in that order: `batch` samples for each batch it serves."""
        rng = np.random.default_rng([1, self.seed, epoch])
        shards = rng.permutation(len(self.counts))
        # Without a turn of the line, the remainder of a single shard would be its last samples in every
        # epoch.
        total, turn = sum(self.counts), int(rng.integers(sum(self.counts)))
        before = sum(len(self.served(epoch, other)) for other in range(worker))
        start = turn + self.batch * (rank * self.steps + before)
        stop = start + self.batch * len(self.served(epoch, worker))
        ends = np.cumsum(np.asarray(self.counts)[shards])
        return [
            Stretch(int(shards[i]), *(int(edge - ends[i] + self.counts[shards[i]]) for edge in edges))
            for lap in (0, total)
            for i, *edges in _overlaps(ends, max(start - lap, 0), min(stop - lap, total))
        ]

    def order(self, epoch: int, rank: int, worker: int, skip: int = 0) -> tuple[Int[np.ndarray, " b"], Iterator[int]]:
        """The order in which this reader hands on what it reads, as positions in its joined stretches: what it
        holds and what follows once `skip` of them have gone (see `shuffled`)."""
        rng = np.random.default_rng([2, self.seed, epoch, rank, worker])
        return shuffled(self.batch * len(self.served(epoch, worker)), self.buffer, rng, skip)

    def window(self, micro_batch: int) -> range:
        """What this one, if it is balanced, may choose from: positions in the joined stretches of its reader.

        As many as the buffer holds. Over an epoch they slide from the first positions of the reader to its last, by
        a batch at most, so that each image has its chance, and the rare ones several.
        """
        served = self.served(micro_batch // self.steps, micro_batch % self.workers)
        n = self.batch * len(served)
        size = min(max(self.buffer, self.batch), n)
        start = (n - size) * served.index(micro_batch) // max(1, len(served) - 1)
        return range(start, start + size)


def shuffled(
    n: int, buffer: int, rng: np.random.Generator, skip: int = 0
) -> tuple[Int[np.ndarray, " b"], Iterator[int]]:
    """The order in which `n` samples leave a shuffle buffer of `buffer` places, from the one after `skip` on.

    The buffer is filled; then the sample at a random place leaves, and the next one takes its place; at the
    end the rest leaves in random order. So the k-th to leave is among the first `k + buffer`.

    Returns the samples in the buffer when `skip` have left, and the others in the order in which they leave.
    Nothing here is as long as `n`, so a worker's memory does not grow with its data.
    """
    held = np.arange(min(max(buffer, 1), n))
    gone = min(skip, n - len(held))
    for first in range(0, gone, _CHUNK):
        entering = np.arange(first, min(first + _CHUNK, gone)) + len(held)
        # Of several samples that have taken one place, the last is in it.
        np.maximum.at(held, rng.integers(0, len(held), len(entering)), entering)
    if skip > gone:  # nothing enters any more
        held = rng.permutation(held)[skip - gone :]
        return held, iter(held.tolist())
    return held, _leaving(held.tolist(), range(gone + len(held), n), rng)


def _leaving(held: list[int], others: range, rng: np.random.Generator) -> Iterator[int]:
    """The samples that leave a full buffer, which holds `held`, while `others` enter it and then at the end."""
    for first in range(0, len(others), _CHUNK):
        entering = others[first : first + _CHUNK]
        for place, sample in zip(rng.integers(0, len(held), len(entering)).tolist(), entering, strict=True):
            yield held[place]
            held[place] = sample
    yield from rng.permutation(held).tolist()


def _overlaps(ends: Int[np.ndarray, " s"], start: int, stop: int) -> list[tuple[int, int, int]]:
    """(number, first, last) of each piece of a line, cut at `ends`, that overlaps `start` to `stop`."""
    if start >= stop:
        return []
    first, last = np.searchsorted(ends, start, side="right"), np.searchsorted(ends, stop, side="left")
    pieces = []
    for i in range(int(first), int(last) + 1):
        left, right = max(start, int(ends[i - 1]) if i else 0), min(stop, int(ends[i]))
        if left < right:
            pieces.append((i, left, right))
    return pieces
