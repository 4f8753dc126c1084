"""Choosing images by their tags, and streams of balanced batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import encoded_image
from hypothesis import given
from hypothesis import strategies as st
from numbered_source import Numbers

from stylesim.core.errors import StylesimError
from stylesim.data.batch import Batch
from stylesim.data.modules import ShardDataModule
from stylesim.data.sample import Sample
from stylesim.data.sampling.balance import choose_by_inverse_frequency, choose_by_tag, parse_balance
from stylesim.data.sampling.plan import Plan
from stylesim.data.sampling.planned_source import PlannedSource, read_balanced
from stylesim.data.sampling.stream import Stream
from stylesim.data.sampling.stream_loader import StreamLoader
from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_writer import ShardWriter
from stylesim.data.views import TwoViews

TAIL = {5: "rare", 31: "rare", 17: "rarer", 44: "rarer"}  # all other images are "common"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images with a long tail; number 9 is damaged."""
    folder = tmp_path_factory.mktemp("balance") / "train"
    with ShardWriter(folder, size=13) as writer:
        for number in range(60):
            image = b"no image" if number == 9 else encoded_image(number)
            writer.write(f"{number:05d}", image, {"tags": [TAIL.get(number, "common")]}, extension="jpg")
    index_shards(folder, show=False)
    return folder


def stream_of(root: Path, rank: int = 0, world: int = 1, start: int = 0, stop: int = 25, **options) -> StreamLoader:
    usual = {"batch_size": 6, "workers": 0, "shuffle_buffer": 24, "seed": 3, "balance": "inverse_frequency"}
    module = ShardDataModule(str(root), views=TwoViews(8), **usual | options)
    tags: dict[str, int | None] = {tag: column for column, tag in enumerate(module.vocabulary)}
    return StreamLoader(Stream(module.planned_sources(world), module.views, tags, rank, start, stop), module.workers)


def assert_same(batches: list[Batch], expected: list[Batch]) -> None:
    assert [(batch.keys, batch.damaged) for batch in batches] == [(batch.keys, batch.damaged) for batch in expected]
    assert all(torch.equal(one.views, other.views) for one, other in zip(batches, expected, strict=True))


tagged = st.lists(st.lists(st.integers(0, 5), max_size=3, unique=True), max_size=20)


@given(tagged, st.integers(0, 25), st.integers(0, 9), st.sampled_from(["frequency", "tags"]))
def test_as_many_different_images_are_chosen_as_there_are(tags, wanted, seed, strategy):
    choose = (
        partial(choose_by_inverse_frequency, counts=range(1, 7))
        if strategy == "frequency"
        else partial(choose_by_tag, per_tag=3)
    )
    chosen = choose(tags, wanted, np.random.default_rng(seed))
    assert len(chosen) == len(set(chosen)) == min(wanted, len(tags))
    assert set(chosen) <= set(range(len(tags)))
    assert chosen == choose(tags, wanted, np.random.default_rng(seed))


def test_probabilities_are_inverse_to_the_frequency_of_the_rarest_tag():
    # For one image: weights 1/8, 1/2 (by its second tag), 1/8 (no tag: as the most frequent), 1/4.
    tags, counts = [[0], [0, 1], [], [2]], (8, 2, 4)
    rng = np.random.default_rng(0)
    drawn = Counter(choose_by_inverse_frequency(tags, 1, rng, counts=counts)[0] for _ in range(8000))
    assert [drawn[index] / 8000 for index in range(4)] == pytest.approx([1 / 8, 1 / 2, 1 / 8, 1 / 4], abs=0.03)


def test_a_batch_holds_k_images_of_each_of_p_tags():
    tags = [[0]] * 50 + [[1]] * 4 + [[2]] * 4 + [[3]] * 3 + [[4]]
    seen = Counter()
    for seed in range(200):
        chosen = choose_by_tag(tags, 8, np.random.default_rng(seed), per_tag=4)
        counts = Counter(tags[index][0] for index in chosen)
        assert 4 not in counts or counts[3] == 3, "the only image of a tag is taken only to fill up"
        assert len(counts) == (3 if 3 in counts else 2)
        seen.update(counts.keys())
    assert seen[1] == pytest.approx(seen[0], rel=0.3), "a tag of four images is drawn as often as one of fifty"


def test_an_image_chosen_for_another_tag_counts():
    tags = [[0, 1], [0, 1], [1], [1], [2]]
    for seed in range(20):
        chosen = choose_by_tag(tags, 2, np.random.default_rng(seed), per_tag=2)
        assert set.intersection(*(set(tags[index]) for index in chosen))


@pytest.mark.parametrize(
    ("setting", "message"),
    [("by_class", "data.balance must be null"), ("8x1", "K of at least 2"), ("4x4", "batch_size is 6")],
)
def test_an_unknown_strategy_is_refused(setting, message, root):
    with pytest.raises(StylesimError, match=message):
        stream_of(root, balance=setting)


@pytest.mark.parametrize("balance", ["inverse_frequency", "3x2"])
@pytest.mark.parametrize(("workers", "position"), [(0, 7), (2, 3), (2, 14)])
def test_a_balanced_stream_entered_anywhere_continues_bit_for_bit(root, balance, workers, position):
    whole = list(stream_of(root, workers=workers, balance=balance))
    assert len(whole) == 25
    assert_same(list(stream_of(root, workers=workers, balance=balance, start=position)), whole[position:])


@pytest.mark.parametrize(("balance", "times"), [("inverse_frequency", 3), ("3x2", 1.5)])
def test_no_image_is_twice_in_a_global_batch_and_rare_images_are_frequent(root, balance, times):
    ranks = [list(stream_of(root, rank, 2, stop=50, balance=balance, shuffle_buffer=60)) for rank in range(2)]
    seen: Counter[str] = Counter()
    for batches in zip(*ranks, strict=True):
        keys = [key for batch in batches for key in batch.keys]
        assert len(set(keys)) == len(keys) >= 11  # one of twelve is damaged at most
        seen.update("tail" if int(key[-5:]) in TAIL else "head" for key in keys)
    assert seen["tail"] / seen.total() > times * len(TAIL) / 60


def test_an_image_that_comes_again_gets_other_views(root):
    views: dict[str, list[torch.Tensor]] = {}
    for batch in stream_of(root, stop=8):
        for i, key in enumerate(batch.keys):
            views.setdefault(key, []).append(batch.views[:, i])
    again = [both for both in views.values() if len(both) > 1]
    assert len(again) >= 4
    assert sum(torch.equal(both[0], both[1]) for both in again) <= 1


def test_an_unreadable_sample_is_named_once_in_an_epoch(root):
    [planned] = stream_of(root).stream.sources
    no_image = "train/00001/00020"

    class Damaged:
        counts = planned.source.counts

        def read(self, number: int, positions: Sequence[int]) -> Iterator[Sample]:
            for sample in planned.source.read(number, positions):
                yield sample._replace(image=None, problem="no image") if sample.id == no_image else sample

    loader = stream_of(root, stop=10)
    loader.stream.sources = (planned._replace(source=Damaged()),)
    batches = list(loader)
    named = Counter(key for batch in batches for key, _ in batch.damaged)
    assert named[no_image] == 1
    assert all(len(batch.keys) >= 5 for batch in batches), (
        "they come in addition to the chosen ones; the broken image takes a place"
    )
    loader.stream.start = 4
    assert_same(list(loader), batches[4:])


@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    readers=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)),
    buffer=st.integers(0, 12),
    done=st.integers(0, 4),
)
def test_readers_choose_from_samples_of_their_own(counts, readers, buffer, done):
    batch, world, workers = readers
    counts[0] += batch * world
    plan = Plan(tuple(counts), batch, world, workers, seed=1, buffer=buffer)
    planned = PlannedSource(Numbers(), plan, parse_balance("inverse_frequency", batch)([5, 1]))
    by_micro_batch: dict[int, list[str]] = {}

    def columns_of(sample: Sample) -> list[int]:
        return [int(sample.id[-1]) % 3 == 0]

    for rank in range(world):
        for worker in range(workers):
            whole = list(read_balanced(planned, 2, rank, worker, columns_of))
            assert list(read_balanced(planned, 2, rank, worker, columns_of, done)) == whole[done:]
            for m, samples in zip(plan.micro_batches(2, worker), whole, strict=True):
                by_micro_batch.setdefault(m, []).extend(sample.id for sample in samples)
    assert set(by_micro_batch) == set(range(2 * plan.steps, 3 * plan.steps))
    assert all(len(keys) == len(set(keys)) == batch * world for keys in by_micro_batch.values())


@given(
    st.integers(1, 300), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 40), st.integers(0, 3)
)
def test_windows_cover_everything_that_a_reader_reads(count, batch, world, workers, buffer, epoch):
    plan = Plan((count + batch * world,), batch, world, workers, buffer=buffer)
    for worker in range(workers):
        windows = [plan.window(m) for m in plan.micro_batches(epoch, worker)]
        n = batch * len(windows)
        assert all(len(window) == min(max(buffer, batch), n) for window in windows)
        assert {at for window in windows for at in window} == set(range(n))
        assert all(0 <= b.start - a.start <= batch for a, b in pairwise(windows))
