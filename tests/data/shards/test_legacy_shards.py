"""Shards that were indexed before the index held the offsets of samples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from stylesim.data.modules import ShardDataModule
from stylesim.data.roots import Root
from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_index import load_index
from stylesim.data.shards.shard_samples import read_shards
from stylesim.data.views import TwoViews

LEGACY = Path(__file__).parents[2] / "legacy" / "shards"
ORDER = [["00003", "00004", "00005"], ["00001", "00000", "00002"], ["00005", "00004", "00001"]]
"""Keys of the first batches, as the version that wrote the shards served them."""


def module_of(root: Path) -> ShardDataModule:
    return ShardDataModule(str(root), batch_size=3, workers=0, shuffle_buffer=2, views=TwoViews(8))


def test_an_index_without_offsets_is_read_in_the_order_it_always_had() -> None:
    assert "starts" not in (LEGACY / "index.json").read_text()
    assert [sample.id for sample in read_shards(LEGACY)] == [f"shards/0000{i // 3}/0000{i}" for i in range(6)]
    loader = module_of(LEGACY).train_dataloader()
    loader.stream.stop = 3
    assert [[key[-5:] for key in batch.keys] for batch in loader] == ORDER


def test_a_run_on_an_index_without_offsets_is_resumed_bit_for_bit() -> None:
    whole, resumed = module_of(LEGACY), module_of(LEGACY)
    resumed.position = 1
    loaders = whole.train_dataloader(), resumed.train_dataloader()
    assert torch.equal(list(loaders[0])[1].views, next(iter(loaders[1])).views)
    index = load_index(Root(str(LEGACY), "shards"))
    assert [sample.id[-5:] for sample in index.read(0, [2])] == ["00002"]


def test_indexing_again_adds_offsets_and_changes_nothing_else(tmp_path: Path) -> None:
    root = Path(shutil.copytree(LEGACY, tmp_path / "shards"))
    index_shards(root, processes=1, show=False)
    old, new = (json.loads((folder / "index.json").read_text()) for folder in (LEGACY, root))
    assert [shard.pop("starts") for shard in new["shards"]] == ["0 5 5", "0 5 5"]
    assert new == old
