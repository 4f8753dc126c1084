"""The order of a stream of samples, a pure function that reads no data.

The shards of an epoch are permuted and joined into one sequence of samples. The sequence is divided into one part per
reader (a worker of a rank), which has as many samples as the micro-batches that the reader serves. So any number of
shards suits any number of readers, and all ranks get the same number of batches. A reader shuffles its part through a
buffer. The random draws of the buffer are made here, on indices instead of samples, so a stream can start anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from stylesim.core.errors import ConfigError

_CHUNK = 1 << 13
"""Number of random draws computed at a time."""


class Segment(NamedTuple):
    """Samples `start` (included) to `stop` (excluded) of shard number `shard`."""

    shard: int
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """The order in which the samples of shards are served.

    Micro-batches are counted per rank over the whole run: micro-batch `m` belongs to epoch `m // steps`, and to worker
    `m % workers`, as a `DataLoader` asks its workers in turn.

    Raises:
        ConfigError: If one epoch does not fill one global batch.
    """

    counts: tuple[int, ...]
    """Number of samples in each shard."""
    batch_size: int
    """Samples of a micro-batch on one rank."""
    world: int = 1
    """Number of ranks; a global batch has `batch_size * world` samples."""
    workers: int = 1
    """Reading workers of each rank."""
    seed: int = 0
    buffer: int = 0
    """Samples that a reader may hold to shuffle or to choose from; below 2, only the shards are shuffled."""

    def __post_init__(self) -> None:
        if self.steps == 0:
            raise ConfigError(
                f"{sum(self.counts)} images do not fill one global batch of {self.batch_size} for each of "
                f"{self.world} processes: lower data.batch_size, use fewer processes, or add images."
            )

    @property
    def steps(self) -> int:
        """Number of micro-batches in one epoch, the same on each rank."""
        return sum(self.counts) // (self.batch_size * self.world)

    @property
    def dropped(self) -> int:
        """Number of samples that an epoch leaves out (other ones in each epoch), fewer than one global batch."""
        return sum(self.counts) % (self.batch_size * self.world)

    def micro_batches(self, epoch: int, worker: int) -> range:
        """Return the micro-batches of `epoch` that `worker` serves, counted from the start of the run."""
        first = epoch * self.steps
        return range(first + (worker - first) % self.workers, first + self.steps, self.workers)

    def segments(self, epoch: int, rank: int, worker: int) -> list[Segment]:
        """Return what a reader reads in `epoch`, in that order: `batch_size` samples for each batch it serves."""
        rng = np.random.default_rng([1, self.seed, epoch])
        shards = rng.permutation(len(self.counts))
        # The sequence begins at a random sample. Otherwise the remainder that an epoch of a single shard drops would
        # always be its last samples.
        total, begin = sum(self.counts), int(rng.integers(sum(self.counts)))
        before = sum(len(self.micro_batches(epoch, other)) for other in range(worker))
        start = begin + self.batch_size * (rank * self.steps + before)
        stop = start + self.batch_size * len(self.micro_batches(epoch, worker))
        ends = np.cumsum(np.asarray(self.counts)[shards])
        return [
            Segment(int(shards[i]), *(int(edge - ends[i] + self.counts[shards[i]]) for edge in edges))
            for lap in (0, total)
            for i, *edges in _overlaps(ends, max(start - lap, 0), min(stop - lap, total))
        ]

    def order(self, epoch: int, rank: int, worker: int, skip: int = 0) -> tuple[Int[np.ndarray, " b"], Iterator[int]]:
        """Return the order in which a reader serves its samples, as positions in its joined segments.

        Args:
            epoch: Number of the epoch.
            rank: Rank of the reader.
            worker: Worker of the reader.
            skip: Samples that have been served already.

        Returns:
            The positions in the buffer, and the others in the order in which they are served (see `shuffle`).
        """
        rng = np.random.default_rng([2, self.seed, epoch, rank, worker])
        return shuffle(self.batch_size * len(self.micro_batches(epoch, worker)), self.buffer, rng, skip)

    def window(self, micro_batch: int) -> range:
        """Return the positions, in the joined segments of its reader, that a balanced micro-batch may choose from.

        They are as many as the buffer holds. Over an epoch they move from the first positions of the reader to its
        last, by at most a batch each time, so that each image can be chosen, and the rare ones several times.
        """
        served = self.micro_batches(micro_batch // self.steps, micro_batch % self.workers)
        n = self.batch_size * len(served)
        size = min(max(self.buffer, self.batch_size), n)
        start = (n - size) * served.index(micro_batch) // max(1, len(served) - 1)
        return range(start, start + size)


def shuffle(
    n: int, buffer: int, rng: np.random.Generator, skip: int = 0
) -> tuple[Int[np.ndarray, " b"], Iterator[int]]:
    """Return the order in which samples leave a shuffle buffer.

    The buffer is filled with the first samples; then a random one leaves and the next one takes its place; at the end
    the rest leaves in random order. So the k-th to leave is among the first `k + buffer`. No array here has length `n`,
    so the memory of a worker does not grow with its data.

    Args:
        n: Number of samples that pass through the buffer.
        buffer: Number of samples that it holds.
        rng: Random number generator.
        skip: Number of samples that have left already.

    Returns:
        The samples in the buffer when `skip` have left, and an iterator over the others in the order they leave.
    """
    held = np.arange(min(max(buffer, 1), n))
    replaced = min(skip, n - len(held))
    for first in range(0, replaced, _CHUNK):
        entering = np.arange(first, min(first + _CHUNK, replaced)) + len(held)
        # Of several samples that entered at the same index, the last one remains.
        np.maximum.at(held, rng.integers(0, len(held), len(entering)), entering)
    if skip > replaced:  # no further sample enters
        held = rng.permutation(held)[skip - replaced :]
        return held, iter(held.tolist())
    return held, _leaving(held.tolist(), range(replaced + len(held), n), rng)


def _leaving(held: list[int], others: range, rng: np.random.Generator) -> Iterator[int]:
    """Yield the samples that leave a full buffer, which holds `held`, while `others` enter it and then at the end."""
    for first in range(0, len(others), _CHUNK):
        entering = others[first : first + _CHUNK]
        for index, sample in zip(rng.integers(0, len(held), len(entering)).tolist(), entering, strict=True):
            yield held[index]
            held[index] = sample
    yield from rng.permutation(held).tolist()


def _overlaps(ends: Int[np.ndarray, " s"], start: int, stop: int) -> list[tuple[int, int, int]]:
    """Return (number, first, last) of each piece of a sequence, divided at `ends`, that overlaps `start` to `stop`."""
    if start >= stop:
        return []
    first, last = np.searchsorted(ends, start, side="right"), np.searchsorted(ends, stop, side="left")
    pieces = []
    for i in range(int(first), int(last) + 1):
        left, right = max(start, int(ends[i - 1]) if i else 0), min(stop, int(ends[i]))
        if left < right:
            pieces.append((i, left, right))
    return pieces
