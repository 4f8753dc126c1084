"""The index of shards: what it holds, and how it is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpus import picture, write_root, write_tar

from stylesim.data.roots import Root
from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_index import load_index


def test_the_index_counts_images_bytes_and_tags(tmp_path: Path):
    write_root(tmp_path / "train", 10, size=4)
    index = json.loads((tmp_path / "train" / "index.json").read_text())
    assert index["format"] == 1
    assert index["count"] == 10
    assert index["tags"] == {"set:0": 4, "set:1": 3, "set:2": 3}
    assert [shard["count"] for shard in index["shards"]] == [4, 4, 2]
    for shard in index["shards"]:
        assert shard["bytes"] == (tmp_path / "train" / shard["name"]).stat().st_size
        assert len(shard["sha256"]) == 64


def test_several_processes_make_the_same_index(tmp_path: Path):
    root = write_root(tmp_path, 10, size=2)
    alone = (root / "index.json").read_bytes()
    index_shards(root, processes=2, show=False)
    assert (root / "index.json").read_bytes() == alone


def test_interrupted_indexing_continues_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = write_root(tmp_path, 10, size=2)
    whole = (root / "index.json").read_bytes()
    examined = []

    def examine_some(path: Path) -> dict:
        examined.append(path.name)
        if len(examined) == 3:
            raise KeyboardInterrupt
        return examine(path)

    from stylesim.data.shards.indexing import _examine as examine

    monkeypatch.setattr("stylesim.data.shards.indexing._examine", examine_some)
    with pytest.raises(KeyboardInterrupt):
        index_shards(root, processes=1, show=False)
    index_shards(root, processes=1, show=False)
    assert examined == [f"0000{number}.tar" for number in (0, 1, 2, 2, 3, 4)]
    assert (root / "index.json").read_bytes() == whole
    assert not list(root.glob(".*"))


def test_indexing_reports_problems(tmp_path: Path):
    write_tar(
        tmp_path / "0.tar",
        {"a.jpg": picture(0), "b.json": {"tags": []}, "c.jpg": b"", "c.json": {}, "a.png": b"", "a.json": {}},
    )
    problems = index_shards(tmp_path, show=False)
    assert any("1 samples with no labels" in problem for problem in problems)
    assert any("1 samples with no image" in problem for problem in problems)
    assert any("keys occur more than once, such as 0/a" in problem for problem in problems)


def test_an_index_can_be_read_from_a_command(tmp_path: Path):
    write_root(tmp_path / "train", 10)
    assert load_index(Root(f"pipe:cat {tmp_path}/train", "train")).count == 10
