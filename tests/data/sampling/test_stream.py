"""Streams of real shards read by real workers, over pipes and http, stopped and entered again."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import encoded_image, write_root, write_tar
from hypothesis import given
from hypothesis import strategies as st
from numbered_source import Numbers
from torch.utils.data import DataLoader

from stylesim.core.errors import DataError
from stylesim.data.batch import Batch, UncutBatch
from stylesim.data.modules import ShardDataModule
from stylesim.data.roots import name_roots
from stylesim.data.sampling import stream_loader
from stylesim.data.sampling.plan import Plan
from stylesim.data.sampling.planned_source import PlannedSource, read_in_order
from stylesim.data.sampling.stream import Stream
from stylesim.data.sampling.stream_loader import StreamLoader, keep_as_is
from stylesim.data.shards.indexing import index_shards
from stylesim.data.views import TwoViews


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_root(tmp_path_factory.mktemp("stream") / "train", 40, size=7)


def module_of(root: Any, **options: Any) -> ShardDataModule:
    usual = {"batch_size": 4, "workers": 0, "shuffle_buffer": 6, "seed": 5, "views": TwoViews(8)}
    return ShardDataModule(root, **usual | options)


def stream_of(module: ShardDataModule, rank: int, world: int, start: int, stop: int) -> Stream:
    module.sources  # noqa: B018 (opens them)
    stream = module.train_dataloader().stream
    return Stream(module.planned_sources(world), stream.views, stream.tags, rank, start, stop)


def assert_same(batches: list[Batch], expected: list[Batch]) -> None:
    assert [batch.keys for batch in batches] == [batch.keys for batch in expected]
    for one, other in zip(batches, expected, strict=True):
        assert torch.equal(one.views, other.views)
        assert torch.equal(one.tags, other.tags)
        assert one.damaged == other.damaged


def test_a_batch_holds_two_views_the_tags_and_the_ids_of_its_images(root: Path):
    module = module_of(str(root))
    batch = next(iter(module.train_dataloader()))
    assert batch.views.shape == (2, 4, 3, 8, 8)
    assert batch.views.dtype == torch.uint8
    assert not torch.equal(batch.views[0], batch.views[1])
    assert module.vocabulary == ["set:0", "set:1", "set:2"]
    for key, row in zip(batch.keys, batch.tags.tolist(), strict=True):
        folder, shard, number = key.split("/")
        assert (folder, int(shard)) == ("train", int(number) // 7)
        assert row == [int(number) % 3 == tag for tag in range(3)]


def broken_root(folder: Path, good: int) -> Path:
    """Eight images, of which all but the first `good` are damaged."""
    for shard in range(2):
        members: dict[str, bytes | dict] = {}
        for number in range(4 * shard, 4 * shard + 4):
            members[f"{number}.jpg"] = encoded_image(number, 20 + number, 30) if number < good else b"no image"
            members[f"{number}.json"] = {"tags": ["set:0"]}
        write_tar(folder / f"{shard:05d}.tar", members)
    index_shards(folder, show=False)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_views_cut_on_the_device_are_those_that_workers_cut(tmp_path: Path, workers: int):
    root, views = str(broken_root(tmp_path / "train", good=6)), TwoViews(16, greyscale=0.5)
    usual, late = (module_of(root, views=replace(views, on_device=d), workers=workers) for d in (False, True))
    uncut = list(late.train_dataloader())
    assert all(isinstance(batch, UncutBatch) for batch in uncut)
    assert_same([late.on_after_batch_transfer(batch, 0) for batch in uncut], list(usual.train_dataloader()))


def test_a_batch_that_has_lost_all_its_images_is_cut_too(tmp_path: Path):
    module = module_of(str(broken_root(tmp_path / "train", good=0)), views=TwoViews(8, on_device=True))
    batch = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
    assert batch.views.shape == (2, 0, 3, 8, 8)
    assert len(batch.damaged) == 4


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_an_epoch_serves_each_image_once_for_any_number_of_workers(root: Path, workers: int):
    keys = [key for batch in module_of(str(root), workers=workers).train_dataloader() for key in batch.keys]
    assert len(set(keys)) == len(keys) == 40


def test_ranks_share_an_epoch_without_overlap(root: Path):
    module = module_of(str(root))
    loaders = [StreamLoader(stream_of(module, rank, 3, 0, 3), 0) for rank in range(3)]
    seen = Counter(key for loader in loaders for batch in loader for key in batch.keys)
    assert len(seen) == 36  # 40 less a remainder of 4
    assert set(seen.values()) == {1}


@pytest.mark.parametrize(("workers", "position"), [(0, 7), (2, 3), (3, 11), (3, 25)])
def test_a_stream_entered_anywhere_continues_bit_for_bit(root: Path, workers: int, position: int):
    module = module_of(str(root), workers=workers)
    stream = stream_of(module, 0, 1, 0, 27)  # nearly three epochs of ten
    whole = list(StreamLoader(stream, workers))
    tail = list(StreamLoader(stream_of(module, 0, 1, position, 27), workers))
    assert len(whole) == 27
    assert_same(tail, whole[position:])


def test_views_of_an_image_depend_on_epoch_and_seed_and_not_on_the_reader(root: Path):
    def views(module: ShardDataModule, start: int, stop: int) -> dict[str, torch.Tensor]:
        batches = StreamLoader(stream_of(module, 0, 1, start, stop), module.workers)
        return {key: batch.views[:, i] for batch in batches for i, key in enumerate(batch.keys)}

    alone, shared = views(module_of(str(root)), 0, 10), views(module_of(str(root), workers=3), 0, 10)
    assert all(torch.equal(alone[key], shared[key]) for key in alone)
    later, other = views(module_of(str(root)), 10, 20), views(module_of(str(root), seed=6), 0, 10)
    assert sum(torch.equal(alone[key], later[key]) for key in alone) < 4
    assert sum(torch.equal(alone[key], other[key]) for key in alone) < 4


@pytest.mark.slow
def test_workers_of_which_one_hangs_at_its_start_are_started_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def hang_once(worker: int, started: Any) -> None:
        if worker == 1 and not (tmp_path / "hung").exists():
            (tmp_path / "hung").touch()
            time.sleep(600)
        start(worker, started)

    start = stream_loader.start_worker
    monkeypatch.setattr(stream_loader, "start_worker", hang_once)
    monkeypatch.setattr(stream_loader, "START_S", 2.0)
    stream = stream_of(module_of(str(root), workers=2), 0, 1, 0, 5)
    assert_same(list(StreamLoader(stream, 2)), list(StreamLoader(stream, 2)))
    assert (tmp_path / "hung").exists()
    monkeypatch.setattr(stream_loader, "start_worker", lambda worker, started: time.sleep(600))
    monkeypatch.setattr(stream_loader, "START_S", 0.1)
    monkeypatch.setattr(stream_loader, "STARTS", 1)
    with pytest.raises(DataError, match=r"did not start in 1 attempts of 0\.1 s: set data\.workers=0"):
        list(StreamLoader(stream, 1))


@pytest.mark.slow
def test_workers_may_be_spawned(root: Path):
    stream = stream_of(module_of(str(root), workers=2), 1, 2, 0, 5)
    loader = DataLoader(stream, batch_size=None, collate_fn=keep_as_is, num_workers=2, multiprocessing_context="spawn")
    assert_same(list(loader), list(StreamLoader(stream, 2)))


def test_skipped_shards_are_not_opened(root: Path):
    module = module_of(str(root), shuffle_buffer=0)
    [planned] = module.planned_sources(1)
    opened = []

    class Watched:
        def read(self, number: int, positions: Sequence[int]) -> Iterator[Any]:
            opened.append(number)
            return planned.source.read(number, positions)

    samples = list(read_in_order(planned._replace(source=Watched()), 0, 0, 0, skip=36))
    assert len(samples) == 4
    assert len(opened) <= 2


@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    readers=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)),
    buffer=st.integers(0, 12),
    entry=st.floats(0, 1),
)
def test_readers_end_together_and_can_be_entered_anywhere(
    counts: list[int], readers: tuple[int, int, int], buffer: int, entry: float
):
    batch, world, workers = readers
    counts[0] += batch * world
    planned = PlannedSource(Numbers(), Plan(tuple(counts), batch, world, workers, seed=1, buffer=buffer))
    seen = []
    for rank in range(world):
        for worker in range(workers):
            whole = list(read_in_order(planned, 3, rank, worker))
            skip = int(entry * len(whole))
            assert list(read_in_order(planned, 3, rank, worker, skip)) == whole[skip:]
            seen += [sample.id for sample in whole]
    assert len(set(seen)) == len(seen) == planned.plan.steps * batch * world


def test_the_loader_counts_from_the_start_of_the_run_and_measures_how_long_it_waits(root: Path):
    module = module_of(str(root))
    module.position = 6
    loader = module.train_dataloader()
    assert len(loader) == 10
    assert len(list(loader)) == 4
    assert loader.seconds_waited > 0


def test_the_first_batches_can_be_repeated(root: Path):
    plain = list(module_of(str(root)).train_dataloader())
    module = module_of(str(root), repeat_batches=2)
    module.position = 3
    repeated = list(module.train_dataloader())
    assert_same(repeated, [plain[1], plain[0], plain[1], plain[0], plain[1], plain[0], plain[1]])


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def address(root: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(root.parent)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/train"
    server.shutdown()
    server.server_close()


def test_shards_over_http_read_like_local_ones(root: Path, address: str):
    here = list(module_of(str(root), workers=2).train_dataloader())
    assert_same(list(module_of(address, workers=2).train_dataloader()), here)


@pytest.mark.parametrize("command", ["pipe:cat {root}/", "pipe:cat {root}/{{}} | cat"])
def test_shards_from_a_command_read_like_local_ones(root: Path, command: str):
    here = [sorted(batch.keys) for batch in module_of(str(root)).train_dataloader()]
    there = module_of(command.format(root=root), workers=0).train_dataloader()
    assert [sorted(key.split("/", 1)[-1] for key in batch.keys) for batch in there] == [
        [key.split("/", 1)[-1] for key in keys] for keys in here
    ]


def test_gzipped_shards_read_like_plain_ones(root: Path, tmp_path: Path):
    zipped = write_root(tmp_path / "train", 40, size=7, suffix=".tar.gz")
    assert_same(list(module_of(str(zipped)).train_dataloader()), list(module_of(str(root)).train_dataloader()))


def test_several_roots_are_one_set_and_merge_their_tags(root: Path, tmp_path: Path):
    other = write_root(tmp_path / "train", 12, tags=5)
    module = module_of([str(root), str(other)])
    keys = [key for batch in module.train_dataloader() for key in batch.keys]
    assert len(set(keys)) == len(keys) == 52
    assert module.vocabulary == [f"set:{tag}" for tag in range(5)]


def test_weights_set_the_shares_of_every_batch_and_no_image_is_twice_in_one(root: Path, tmp_path: Path):
    few = write_root(tmp_path / "few", 5)
    module = module_of({str(root): 3, str(few): 1}, shuffle_buffer=50)
    for batch in StreamLoader(stream_of(module, 0, 1, 0, 40), 0):
        assert Counter(key.split("/")[0] for key in batch.keys) == {"train": 3, "few": 1}
        assert len(set(batch.keys)) == 4


def test_roots_are_named_by_as_much_as_tells_them_apart():
    assert [root.name for root in name_roots(["/a/x/train", "/a/y/train"])] == ["x/train", "y/train"]
    assert [root.name for root in name_roots(["pipe:cat /a/x/{} | cat", "http://h/y"])] == ["x", "y"]
