"""Micro-batches of views from shards or files: the same, however often a stream is stopped and entered."""

from __future__ import annotations

import ctypes
import hashlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from stylesim.core.errors import CorruptSampleError, DataError, StylesimError
from stylesim.data.batch import Batch, UncutBatch, stack_views
from stylesim.data.sample import Sample
from stylesim.data.sampling.balance import Balance
from stylesim.data.sampling.plan import Plan, Stretch
from stylesim.data.views import Drawn, TwoViews

MAX_PIXELS = 1 << 26
"""8192 x 8192: a training image that is larger is skipped as a bomb (200 MB once decoded, in each worker)."""
PR_SET_PDEATHSIG = 1  # of Linux's prctl


class Source(Protocol):
    """Numbered shards of samples, any of which can be read."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Samples of each shard."""
        ...

    def read(self, number: int, places: Sequence[int]) -> Iterator[Sample]:
        """One sample for each of the places (ascending) of shard `number`."""
        ...


class Joined:
    """Several sources read as one."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self.counts = tuple(count for source in sources for count in source.counts)
        self._first = np.cumsum([0, *(len(source.counts) for source in sources)])

    def read(self, number: int, places: Sequence[int]) -> Iterator[Sample]:
        which = int(np.searchsorted(self._first, number, side="right")) - 1
        return self.sources[which].read(number - int(self._first[which]), places)


class Line(NamedTuple):
    """A source, and the order in which it is read; `plan.batch` of each micro-batch come from it.

    With `balance` they are chosen by their tags, out of what the reader holds.
    """

    source: Source
    plan: Plan
    balance: Balance | None = None


@dataclass(eq=False)
class Stream(IterableDataset):
    """Micro-batches `start` (included) to `stop` (excluded) of one rank, counted from the start of the run.

    Every line gives its share of each micro-batch. `tags` are the columns of the multi-hot tags. Rank and
    world are told here and in the plans, never taken from the environment; the worker is the one that
    `DataLoader` makes it.
    """

    lines: tuple[Line, ...]
    views: TwoViews
    tags: dict[str, int | None]
    """Column of each tag that the index knows; None: known, but not selected."""
    rank: int = 0
    start: int = 0
    stop: int = 1 << 62

    def __iter__(self) -> Iterator[Batch | UncutBatch | StylesimError]:
        info = get_worker_info()
        workers = self.lines[0].plan.workers
        assert (info.num_workers if info else 1) == workers, "the plan was made for another number of workers"
        # After a resume DataLoader asks its worker 0 first again, whoever's turn it is in the plan.
        first = self.start + (info.id if info else 0)
        shares = [self._shares(line, first) for line in self.lines]
        try:
            for _ in range(first, self.stop, workers):
                yield self._batch([sample for share in shares for sample in next(share)])
        except StylesimError as error:  # raised in a worker, DataLoader would put a traceback into its message
            yield error

    def _shares(self, line: Line, first: int) -> Iterator[list[tuple[int, Sample]]]:
        """What this line gives to micro-batch `first` and to all that its worker serves after it: (turn, sample).

        The turn is what makes the views of an image that comes again different: its epoch, or where it may come
        several times in one, the micro-batch.
        """
        plan, worker = line.plan, first % line.plan.workers
        epoch = first // plan.steps
        while True:
            served = plan.served(epoch, worker)
            done = len(range(served.start, first, served.step))
            if line.balance is None:
                samples = read_in_order(line, epoch, self.rank, worker, plan.batch * done)
                yield from ([(epoch, sample) for sample in islice(samples, plan.batch)] for _ in served[done:])
            else:
                chosen = read_balanced(line, epoch, self.rank, worker, self._columns_of, done)
                yield from ([(m, sample) for sample in next(chosen)] for m in served[done:])
            epoch += 1

    def _batch(self, samples: Sequence[tuple[int, Sample]]) -> Batch | UncutBatch:
        images: list[Any] = []  # views, or what they will be cut from
        tags, keys, damaged = [], [], []
        for turn, sample in samples:
            try:
                row = np.zeros(self.columns, bool)
                row[self._columns_of(sample)] = True
                image = self._draw(turn, sample)
            except CorruptSampleError as error:
                damaged.append((sample.id, str(error)))
                continue
            tags.append(row)
            images.append(image if self.views.on_device else self.views.cut_both(image))
            keys.append(sample.id)
        known = torch.from_numpy(np.stack(tags) if tags else np.zeros((0, self.columns), bool))
        if self.views.on_device:
            return UncutBatch.of(images, known, keys, damaged)
        return Batch(stack_views(images, self.views.size), known, keys, damaged)

    def _draw(self, turn: int, sample: Sample) -> Drawn:
        """Views that depend on the image and the turn alone, whichever reader makes them."""
        data = sample.encoded()
        seed = f"{self.lines[0].plan.seed} {turn} {sample.id}".encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(seed, digest_size=16).digest()
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
        return self.views.draw_of_file(data, rng, max_pixels=MAX_PIXELS)

    def _columns_of(self, sample: Sample) -> list[int]:
        """Columns of the selected tags of an image."""
        tags = sample.tags
        if strange := [tag for tag in tags if tag not in self.tags]:
            raise DataError(
                f"The tag {strange[0]!r} of {sample.id} is not in the index of its shard, so that the index belongs to"
                " other shards: make it again with `python -m stylesim.index folder=FOLDER`."
            )
        return [column for tag in tags if (column := self.tags[tag]) is not None]

    @cached_property
    def columns(self) -> int:
        """Length of the multi-hot tags."""
        return sum(column is not None for column in self.tags.values())


def read_in_order(line: Line, epoch: int, rank: int, worker: int, skip: int = 0) -> Iterator[Sample]:
    """The samples of one reader in one epoch in the order of its plan, without the first `skip` of them.

    Reads the stretches from front to back and holds what is not due yet, never more than the plan's buffer.
    Shards that hold only skipped samples are not opened.
    """
    waiting, due = line.plan.order(epoch, rank, worker, skip)
    reading = _read_wanted(line.source, line.plan.stretches(epoch, rank, worker), np.sort(waiting), skip)
    held: dict[int, Sample] = {}
    for position in due:
        while position not in held:
            at, sample = next(reading)
            held[at] = sample
        yield held.pop(position)


def read_balanced(
    line: Line, epoch: int, rank: int, worker: int, columns_of: Callable[[Sample], list[int]], done: int = 0
) -> Iterator[list[Sample]]:
    """The samples of each micro-batch of one reader in one epoch, without the first `done` batches.

    They are chosen, by the columns of their tags, from the window that the plan gives each batch: what is chosen
    depends on what lies in that window alone, so a resumed stream reads one window and has its place. Samples that
    cannot be chosen, having no image or no valid tags, go with the first batch whose window reaches them.
    """
    plan, served = line.plan, line.plan.served(epoch, worker)
    left = served[done:]
    if line.balance is None or not left:
        return
    reached = plan.window(served[done - 1]).stop if done else 0
    first = plan.window(left[0]).start
    reading = _read_wanted(line.source, plan.stretches(epoch, rank, worker), np.empty(0, np.int64), first)
    held: dict[int, tuple[Sample, list[int]]] = {}
    for m in left:
        window = plan.window(m)
        lost = []
        held = {at: image for at, image in held.items() if at in window}
        for at, sample in islice(reading, window.stop - first):
            try:
                sample.encoded()
                held[at] = sample, columns_of(sample)
            except CorruptSampleError:
                lost += [sample] if at >= reached else []
        first = reached = window.stop
        images, tags = [sample for sample, _ in held.values()], [columns for _, columns in held.values()]
        places = line.balance(tags, plan.batch, np.random.default_rng([3, plan.seed, m, rank]))
        yield [images[place] for place in places] + lost


def _read_wanted(
    source: Source, stretches: Sequence[Stretch], waiting: Int[np.ndarray, " b"], skip: int
) -> Iterator[tuple[int, Sample]]:
    """(position, sample) of stretches laid end to end: of the positions that are `waiting` (sorted) in a buffer
    which `skip` samples have left, and of all behind it."""
    begin, behind = 0, skip + len(waiting)
    for number, start, stop in stretches:
        end = begin + stop - start
        old = waiting[np.searchsorted(waiting, begin) : np.searchsorted(waiting, end)]
        wanted = [*old.tolist(), *range(max(begin, behind), end)]
        if wanted:
            yield from zip(wanted, source.read(number, [at - begin + start for at in wanted]), strict=True)
        begin = end


@dataclass
class StreamLoader:
    """Iterates a stream with the worker processes of its plan: `Batch`, or `UncutBatch` where `views.on_device`.

    `len` counts from the start of the run, whatever the stream starts at, for Lightning counts the batches
    that were done before a resume as fetched.
    """

    stream: Stream
    workers: int
    """Worker processes: 0 reads in this one, as one worker would."""
    repeat: int = 0
    """Serve the first so many micro-batches again and again; 0 goes on through the stream."""
    done: int | None = None
    """Micro-batches that the trainer has counted so far; None: as many as the stream has before its start."""
    seconds_waited: float = 0.0
    """How long whoever iterates has waited for batches so far."""

    def __len__(self) -> int:
        done = self.stream.start if self.done is None else self.done
        return done + self.stream.stop - self.stream.start

    def __iter__(self) -> Iterator[Any]:
        batches = self._read(self.stream) if not self.repeat else self._repeated()
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.seconds_waited += time.perf_counter() - asked
            if batch is None:
                return
            if isinstance(batch, StylesimError):
                raise batch
            yield batch

    def _read(self, stream: Stream) -> Iterator[Any]:
        loader = DataLoader(
            stream,
            batch_size=None,
            collate_fn=as_it_is,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=belong_to_main,
        )
        batches = iter(loader)
        for worker in getattr(batches, "_workers", ()):
            worker._popen.terminate = worker._popen.kill  # deaf to SIGTERM, they would be waited for without end
        return batches

    def _repeated(self) -> Iterator[Any]:
        first = list(self._read(replace(self.stream, start=0, stop=self.repeat)))
        return (first[m % self.repeat] for m in range(self.stream.start, self.stream.stop))


def belong_to_main(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach the whole process group, but the run ends its workers itself, after its
    step. A run that is killed takes them along: without this, one that fills its buffer goes on for minutes."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def as_it_is(batch: Any) -> Any:
    """DataLoader's own collation would take the tuples of a batch apart."""
    return batch
