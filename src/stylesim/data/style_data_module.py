"""The base of the data modules: a stream of training images, and the retrieval sets that are evaluated with it."""

from __future__ import annotations

import difflib
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L

from stylesim.core.errors import ConfigError
from stylesim.data.batch import Batch, UncutBatch
from stylesim.data.datasets.folder import FileSource
from stylesim.data.labels import clean_label
from stylesim.data.roots import Root, name_roots
from stylesim.data.sampling.balance import parse_balance
from stylesim.data.sampling.batch_shares import split_batch
from stylesim.data.sampling.plan import Plan
from stylesim.data.sampling.planned_source import JoinedSource, PlannedSource
from stylesim.data.sampling.position import describe_order, resume_position
from stylesim.data.sampling.stream import Stream
from stylesim.data.sampling.stream_loader import StreamLoader
from stylesim.data.shards.shard_index import Index
from stylesim.data.views import TwoViews

logger = logging.getLogger(__name__)


class StyleDataModule(L.LightningDataModule, ABC):
    """Training images from one or several roots.

    Wrong settings and data are refused when `vocabulary` or a loader is first requested.

    Args:
        root: One location or several, whose images are read as one set; or a mapping of locations to weights, their
            shares of every batch, with separate epochs for each root. Tags of the same name are the same tag.
        batch_size: Number of images in a micro-batch on one rank.
        views: Cuts two views of each image.
        workers: Number of reading processes per rank; 0 reads in the process of the rank.
        seed: Seed of the order of the images and of their views.
        tags: Globs over tag names; other tags are ignored.
        probes: Retrieval sets by name.
        max_damaged: Share of damaged images, in [0, 1], above which a run stops.
        repeat_batches: Train only on this many micro-batches, repeatedly, to check that the model can learn;
            0 trains on all.
    """

    buffer = 0
    balance: str | None = None

    def __init__(
        self,
        root: str | Sequence[str] | Mapping[str, float],
        *,
        batch_size: int,
        views: TwoViews,
        workers: int = 2,
        seed: int = 0,
        tags: Sequence[str] = ("*",),
        probes: Mapping[str, Any] | None = None,
        max_damaged: float = 0.01,
        repeat_batches: int = 0,
    ) -> None:
        super().__init__()
        self.locations = [root] if isinstance(root, str | Path) else list(root)
        self.weights = {str(k): float(v) for k, v in root.items()} if isinstance(root, Mapping) else None
        self.batch_size, self.views, self.workers, self.seed = batch_size, views, workers, seed
        self.tags, self.probes, self.max_damaged = [clean_label(tag) for tag in tags], dict(probes or {}), max_damaged
        self.repeat_batches = repeat_batches
        self._position: int | None = None
        self._saved: dict[str, Any] = {}

    @abstractmethod
    def open_root(self, root: Root) -> Index | FileSource:
        """Open the images of one root."""

    @cached_property
    def sources(self) -> list[Index | FileSource]:
        """The opened roots."""
        if not self.locations:
            raise ConfigError("data.root must name at least one folder of shards or images, got none.")
        return [self.open_root(root) for root in name_roots(self.locations)]

    @cached_property
    def vocabulary(self) -> list[str]:
        """The selected tags of all roots, sorted: the columns of a batch's tags (none if no image has a tag)."""
        known = self._known_tags
        chosen = [tag for tag in known if any(fnmatchcase(tag, glob) for glob in self.tags)]
        if known and not chosen:
            near = difflib.get_close_matches(self.tags[0] if self.tags else "", known, n=5, cutoff=0)
            raise ConfigError(
                f"data.tags {self.tags} matches none of the {len(known)} tags; the nearest are {', '.join(near)}."
            )
        return chosen

    @property
    def _known_tags(self) -> list[str]:
        return sorted({tag for source in self.sources for tag in source.tags})

    @property
    def position(self) -> int:
        """The micro-batch of the stream that this rank reads next; a resumed stream starts there."""
        if self._position is None and self.trainer is not None:
            return self.trainer.global_step * self.trainer.accumulate_grad_batches + self._saved.get("offset", 0)
        return self._position or 0

    @position.setter
    def position(self, position: int) -> None:
        self._position = position

    def state_dict(self) -> dict[str, Any]:
        """Return the order of the stream and the position at which the run entered it, for checkpoints."""
        return self._saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of an earlier run."""
        self._saved = state_dict

    def train_dataloader(self) -> StreamLoader:
        """Return micro-batches from `position` to the trainer's last step; without a trainer, to the end of an epoch.

        Raises:
            ConfigError: If the settings do not fit each other or the data.
            DataError: If the data are missing, empty or inconsistent.
        """
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        sources = self.planned_sources(world)
        done, stop = None, max(planned.plan.steps for planned in sources)
        if trainer is not None:
            if trainer.max_steps < 0:
                raise ConfigError(
                    f"The length of a run is counted in steps: trainer.max_steps must be positive, got"
                    f" {trainer.max_steps}."
                )
            self._enter([planned.plan for planned in sources])
            done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
            stop = self.position + (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches
        columns = {tag: column for column, tag in enumerate(self.vocabulary)}
        tags = {tag: columns.get(tag) for tag in self._known_tags}
        stream = Stream(sources, self.views, tags, rank, self.position, stop)
        self.loader = StreamLoader(stream, self.workers, self.repeat_batches, done)
        return self.loader

    def on_after_batch_transfer(self, batch: Batch | UncutBatch, dataloader_idx: int) -> Batch:
        """Return the batch with its views, which are cut here if they are to be cut on the device."""
        return batch.cut(self.views) if isinstance(batch, UncutBatch) else batch

    def _enter(self, plans: Sequence[Plan]) -> None:
        """Find where a resumed run continues, and save it for the next time."""
        trainer = self.trainer
        assert trainer is not None
        step, accumulation = trainer.global_step, trainer.accumulate_grad_batches
        if (done := trainer.fit_loop.epoch_loop.batch_progress.current.ready) % accumulation:
            raise ConfigError(
                f"trainer.accumulate_grad_batches must divide the {done} micro-batches that the resumed run has done,"
                f" got {accumulation}."
            )
        tags = [(tag, sum(source.tags.get(tag, 0) for source in self.sources)) for tag in self.vocabulary]
        order, steps = describe_order(plans, self.balance, tags), max(plan.steps for plan in plans)
        start, change = resume_position(self._saved, order, steps, step) if self._saved else (step * accumulation, None)
        if change and trainer.is_global_zero:
            logger.warning(change)
        offset = start - step * accumulation
        self._saved = {"order": order, "steps": steps, "accumulation": accumulation, "offset": offset}

    def planned_sources(self, world: int) -> tuple[PlannedSource, ...]:
        """Return what the streams of `world` ranks read, and in which order."""
        if self.weights is None:
            parts = [(self.sources, self.batch_size)]
        else:
            shares = split_batch(self.batch_size, self.weights)
            parts = [([source], share) for source, share in zip(self.sources, shares, strict=True)]
        workers = max(self.workers, 1)
        balance = parse_balance(self.balance, self.batch_size) if self.balance else None
        planned = []
        for sources, share in parts:
            joined = JoinedSource(sources)
            plan = Plan(joined.counts, share, world, workers, self.seed, self.buffer)
            counts = [sum(source.tags.get(tag, 0) for source in sources) for tag in self.vocabulary]
            planned.append(PlannedSource(joined, plan, balance(counts) if balance else None))
        return tuple(planned)

    def retrieval_sets(self) -> dict[str, Any]:
        """Return the `RetrievalSpec` of each probe, by name."""
        return dict(self.probes)
