"""Micro-batches of views from shards or files, which continue identically after a stop."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from stylesim.core.errors import CorruptSampleError, DataError, StylesimError
from stylesim.data.batch import Batch, UncutBatch, stack_views
from stylesim.data.sample import Sample
from stylesim.data.sampling.planned_source import PlannedSource, read_balanced, read_in_order
from stylesim.data.views import DecodedImage, TwoViews

MAX_PIXELS = 1 << 26
"""8192 x 8192. A larger training image is skipped, because it takes 200 MB once decoded, in each worker."""


@dataclass(eq=False)
class Stream(IterableDataset):
    """Micro-batches `start` (included) to `stop` (excluded) of one rank, counted from the start of the run.

    Every source contributes its share of each micro-batch. Rank and world size are passed in, here and in the plans,
    and never read from the environment; the number of the worker comes from `DataLoader`. An error that ends the stream
    is yielded, and `StreamLoader` raises it: `DataLoader` would put the traceback of its worker into the message.
    """

    sources: tuple[PlannedSource, ...]
    views: TwoViews
    tags: dict[str, int | None]
    """Column in the multi-hot tags of each tag that the index knows; None if it is not selected."""
    rank: int = 0
    start: int = 0
    stop: int = 1 << 62

    def __iter__(self) -> Iterator[Batch | UncutBatch | StylesimError]:
        info = get_worker_info()
        workers = self.sources[0].plan.workers
        assert (info.num_workers if info else 1) == workers, "the plan was made for another number of workers"
        # After a resume, DataLoader asks its worker 0 first, whichever worker is next in the plan.
        first = self.start + (info.id if info else 0)
        shares = [self._shares(planned, first) for planned in self.sources]
        try:
            for _ in range(first, self.stop, workers):
                yield self._batch([sample for share in shares for sample in next(share)])
        except StylesimError as error:
            yield error

    def _shares(self, planned: PlannedSource, first: int) -> Iterator[list[tuple[int, Sample]]]:
        """Yield what a source gives to micro-batch `first` and to all that its worker serves after it.

        Each is a list of (draw, sample). The views of an image differ by its draw: the epoch, or the micro-batch where
        an image can come several times in an epoch.
        """
        plan, worker = planned.plan, first % planned.plan.workers
        epoch = first // plan.steps
        while True:
            micro_batches = plan.micro_batches(epoch, worker)
            done = len(range(micro_batches.start, first, micro_batches.step))
            if planned.strategy is None:
                samples = read_in_order(planned, epoch, self.rank, worker, plan.batch_size * done)
                for _ in micro_batches[done:]:
                    yield [(epoch, sample) for sample in islice(samples, plan.batch_size)]
            else:
                chosen = read_balanced(planned, epoch, self.rank, worker, self._columns_of, done)
                for micro_batch in micro_batches[done:]:
                    yield [(micro_batch, sample) for sample in next(chosen)]
            epoch += 1

    def _batch(self, samples: Sequence[tuple[int, Sample]]) -> Batch | UncutBatch:
        images: list[Any] = []  # their views, or the images that these are cut from later
        rows, keys, damaged = [], [], []
        for draw, sample in samples:
            try:
                row = np.zeros(self.columns, bool)
                row[self._columns_of(sample)] = True
                image = self._decode(draw, sample)
            except CorruptSampleError as error:
                damaged.append((sample.id, str(error)))
                continue
            rows.append(row)
            images.append(image if self.views.on_device else self.views.cut_both(image))
            keys.append(sample.id)
        tags = torch.from_numpy(np.stack(rows) if rows else np.zeros((0, self.columns), bool))
        if self.views.on_device:
            return UncutBatch.of(images, tags, keys, damaged)
        return Batch(stack_views(images, self.views.size), tags, keys, damaged)

    def _decode(self, draw: int, sample: Sample) -> DecodedImage:
        """Decode an image and draw its views, which depend on the image and the draw but not on the reader."""
        data = sample.encoded()
        seed = f"{self.sources[0].plan.seed} {draw} {sample.id}".encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(seed, digest_size=16).digest()
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
        return self.views.draw_of_file(data, rng, max_pixels=MAX_PIXELS)

    def _columns_of(self, sample: Sample) -> list[int]:
        """Return the columns of the selected tags of an image."""
        if unknown := [tag for tag in sample.tags if tag not in self.tags]:
            raise DataError(
                f"The tag {unknown[0]!r} of {sample.id} is not in the index of its shard, so the index belongs to other"
                " shards: make it again with `stylesim index folder=FOLDER`."
            )
        return [column for tag in sample.tags if (column := self.tags[tag]) is not None]

    @cached_property
    def columns(self) -> int:
        """Length of the multi-hot tags."""
        return sum(column is not None for column in self.tags.values())
