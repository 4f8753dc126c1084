"""Where a run's images come from: training streams, and the retrieval sets that are asked on the way."""

from __future__ import annotations

import difflib
import hashlib
import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L

from stylesim.core.errors import StylesimError
from stylesim.data.batch import Batch, UncutBatch
from stylesim.data.datasets.folder import FileSource, find_samples, hold_out
from stylesim.data.image_tables import write_image_table
from stylesim.data.roots import Root, name_roots
from stylesim.data.sample import Sample
from stylesim.data.sampling.balance import read_balance
from stylesim.data.sampling.plan import Plan
from stylesim.data.sampling.position import order_of, re_enter
from stylesim.data.sampling.stream import Joined, Line, Stream, StreamLoader
from stylesim.data.shards.shard_index import Index, load_index
from stylesim.data.views import TwoViews


class StyleDataModule(L.LightningDataModule, ABC):
    """Training images from one or several roots.

    `root`: one location or several, whose images are read as one set; or a mapping of locations to weights:
    their shares of every batch, each root with epochs of its own. Tags of the same name are the same tag.
    `batch_size`: images of a micro-batch on one rank. `workers`: reading processes of a rank; 0 reads in
    its own. `tags`: globs over tag names; those that match none are not learnt from. `probes`: retrieval
    sets by name. `repeat_batches`: train on the first so many micro-batches again and again, to see whether
    a model can learn at all. `max_damaged`: share of damaged images, in [0, 1], above which a run stops.

    Everything about the data that can be wrong is refused, as `StylesimError`, when `vocabulary` or a
    loader is first asked for.
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
        self.tags, self.probes, self.max_damaged = list(tags), dict(probes or {}), max_damaged
        self.repeat_batches = repeat_batches
        self._position: int | None = None
        self._place: dict[str, Any] = {}

    @abstractmethod
    def open_root(self, root: Root) -> Index | FileSource:
        """The images of one root."""

    @cached_property
    def sources(self) -> list[Index | FileSource]:
        """The roots, opened."""
        if not self.locations:
            raise StylesimError("data.root names no root: give a folder of shards or images, or several")
        return [self.open_root(root) for root in name_roots(self.locations)]

    @cached_property
    def vocabulary(self) -> list[str]:
        """The selected tags of all roots, sorted: columns of a batch's tags (none if no image has any)."""
        known = self._known_tags
        chosen = [tag for tag in known if any(fnmatchcase(tag, glob) for glob in self.tags)]
        if known and not chosen:
            near = difflib.get_close_matches(self.tags[0] if self.tags else "", known, n=5, cutoff=0)
            raise StylesimError(
                f"data.tags {self.tags} matches none of the {len(known)} tags: near are {', '.join(near)}"
            )
        return chosen

    @property
    def _known_tags(self) -> list[str]:
        return sorted({tag for source in self.sources for tag in source.tags})

    @property
    def position(self) -> int:
        """The micro-batch of the stream that this rank reads next: what a resumed stream starts at."""
        if self._position is None and self.trainer is not None:
            return self.trainer.global_step * self.trainer.accumulate_grad_batches + self._place.get("offset", 0)
        return self._position or 0

    @position.setter
    def position(self, position: int) -> None:
        self._position = position

    def state_dict(self) -> dict[str, Any]:
        """The order of the stream and where the run has entered it, kept in its checkpoints."""
        return self._place

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._place = state_dict

    def train_dataloader(self) -> StreamLoader:
        """Micro-batches from `position` to the trainer's last step (without one: to the end of an epoch)."""
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        lines = self.lines(world)
        done, stop = None, max(line.plan.steps for line in lines)
        if trainer is not None:
            if trainer.max_steps < 0:
                raise StylesimError("the length of a run is counted in steps: set trainer.max_steps")
            self._enter([line.plan for line in lines])
            done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
            stop = self.position + (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches
        columns = {tag: column for column, tag in enumerate(self.vocabulary)}
        tags = {tag: columns.get(tag) for tag in self._known_tags}
        stream = Stream(lines, self.views, tags, rank, self.position, stop)
        self.loader = StreamLoader(stream, self.workers, self.repeat_batches, done)
        return self.loader

    def on_after_batch_transfer(self, batch: Batch | UncutBatch, dataloader_idx: int) -> Batch:
        """The batch with its views, which are cut here if they are to be cut on the device."""
        return batch.cut(self.views) if isinstance(batch, UncutBatch) else batch

    def _enter(self, plans: Sequence[Plan]) -> None:
        """Find the place of a resumed run, and note it for the next time."""
        trainer = self.trainer
        assert trainer is not None
        step, accumulation = trainer.global_step, trainer.accumulate_grad_batches
        if (done := trainer.fit_loop.epoch_loop.batch_progress.current.ready) % accumulation:
            raise StylesimError(
                f"the run that is resumed has done {done} micro-batches, which"
                f" trainer.accumulate_grad_batches={accumulation} does not divide: choose a divisor"
            )
        tags = [(tag, sum(source.tags.get(tag, 0) for source in self.sources)) for tag in self.vocabulary]
        order, steps = order_of(plans, self.balance, tags), max(plan.steps for plan in plans)
        start, sentence = re_enter(self._place, order, steps, step) if self._place else (step * accumulation, None)
        if sentence and trainer.is_global_zero:
            print(f"stylesim: {sentence}.", flush=True)
        offset = start - step * accumulation
        self._place = {"order": order, "steps": steps, "accumulation": accumulation, "offset": offset}

    def lines(self, world: int) -> tuple[Line, ...]:
        """What the streams of `world` ranks read, and in which order."""
        if self.weights is None:
            parts = [(self.sources, self.batch_size)]
        else:
            shares = split_batch(self.batch_size, self.weights)
            parts = [([source], share) for source, share in zip(self.sources, shares, strict=True)]
        workers = max(self.workers, 1)
        balance = read_balance(self.balance, self.batch_size) if self.balance else None
        lines = []
        for sources, share in parts:
            joined = Joined(sources)
            plan = Plan(joined.counts, share, world, workers, self.seed, self.buffer)
            images = [sum(source.tags.get(tag, 0) for source in sources) for tag in self.vocabulary]
            lines.append(Line(joined, plan, balance(images) if balance else None))
        return tuple(lines)

    def retrieval_sets(self) -> dict[str, Any]:
        """`RetrievalSpec` of each probe, by name."""
        return dict(self.probes)


class ShardDataModule(StyleDataModule):
    """Trains on WebDataset shards with an `index.json`: local folders, http(s) prefixes or `pipe:` commands.

    `shuffle_buffer`: encoded images that each worker holds to shuffle among. `balance`: choose each micro-batch out of
    these by the tags, instead of showing each image once in an epoch: `inverse_frequency`, or `PxK` for K images of
    each of P tags (see `balance`). No image is then in a global batch twice, but the rare ones are in many of them,
    with other views, and some of the frequent ones in none.
    """

    def __init__(
        self,
        root: str | Sequence[str] | Mapping[str, float],
        *,
        shuffle_buffer: int = 2000,
        balance: str | None = None,
        **options: Any,
    ):
        super().__init__(root, **options)
        self.buffer, self.balance = shuffle_buffer, balance
        if balance:
            read_balance(balance, self.batch_size)

    def open_root(self, root: Root) -> Index:
        return load_index(root)


class FolderDataModule(StyleDataModule):
    """Trains on image files: a folder per label, or tables of paths and tags (see `find_samples`).

    `validation`: makes a `RetrievalSpec` of `query=[...]`; if given, `validation_share` of the images of
    each tag with four or more are held out of training, and are the queries and the gallery of the set
    "validation".
    """

    def __init__(
        self,
        root: str | Sequence[str] | Mapping[str, float],
        *,
        validation: Callable[..., Any] | None = None,
        validation_share: float = 0.1,
        **options: Any,
    ):
        super().__init__(root, **options)
        self.held: list[Sample] = []
        self.validation, self.validation_share = validation, validation_share

    def open_root(self, root: Root) -> FileSource:
        items = find_samples(root.location, root.name)
        held = hold_out(items, self.validation_share) if self.validation else set()
        self.held += [item for item in items if item.id in held]
        return FileSource(root, tuple(item for item in items if item.id not in held))

    def retrieval_sets(self) -> dict[str, Any]:
        """The probes, and the held-out images as "validation", listed in a table in the run's folder."""
        if self.validation is None:
            return super().retrieval_sets()
        assert self.sources  # opening them fills self.held
        if not self.held:
            raise StylesimError(
                f"no tag of {self.locations} has four images, so none can be held out for validation: "
                "add images, or set data.validation=null"
            )
        folder = Path(self.trainer.default_root_dir if self.trainer else tempfile.gettempdir())
        digest = hashlib.sha256("\n".join(str(item.image) for item in self.held).encode()).hexdigest()[:8]
        table = folder / f"validation-{digest}.parquet"
        # Their ids in the table are their paths, as in every earlier version.
        write_image_table([item._replace(id=str(Path(str(item.image)).absolute())) for item in self.held], table)
        return {**self.probes, "validation": self.validation(query=[str(table)])}


def split_batch(batch: int, weights: Mapping[str, float]) -> list[int]:
    """Whole shares of a batch, by largest remainder.

    Raises `StylesimError` if a weight is not positive, or too small for one image of a batch.
    """
    if not all(0 < weight < math.inf for weight in weights.values()):
        raise StylesimError(f"the weights of data.root must be positive numbers; they are {weights}")
    exact = [batch * weight / sum(weights.values()) for weight in weights.values()]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: batch - sum(shares)]:
        shares[i] += 1
    for location, share in zip(weights, shares, strict=True):
        if share == 0:
            raise StylesimError(
                f"the weight {weights[location]} of {location} is less than one image of a batch of {batch}: "
                f"raise the weight or the batch size"
            )
    return shares
