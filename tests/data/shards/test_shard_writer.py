"""Written shards, their index, and reading them in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpus import picture, write_root, write_tar
from webdataset.compat import WebDataset

from stylesim.core.errors import StylesimError
from stylesim.data.roots import Root
from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_index import load_index
from stylesim.data.shards.shard_samples import read_shards
from stylesim.data.shards.shard_writer import ShardWriter


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_plain_webdataset_reads_what_is_written(tmp_path: Path, suffix: str):
    write_root(tmp_path, 10, size=4, suffix=suffix)
    shards = sorted(map(str, tmp_path.glob(f"*{suffix}")))
    samples: list[Any] = list(iter(WebDataset(shards, shardshuffle=False).decode("pil")))  # type: ignore[arg-type]
    assert [sample["__key__"] for sample in samples] == [f"{number:05d}" for number in range(10)]
    assert samples[4]["json"] == {"tags": ["set:1"], "content": "c1"}
    assert samples[4]["jpg"].size == (40, 30)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_the_same_samples_give_the_same_bytes(tmp_path: Path, suffix: str):
    one, two = write_root(tmp_path / "a", 9, suffix=suffix), write_root(tmp_path / "b", 9, suffix=suffix)
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


def test_an_interrupted_writer_leaves_no_half_shard(tmp_path: Path):
    def write_until_stopped() -> None:
        with ShardWriter(tmp_path, size=2) as writer:
            for number in range(3):
                writer.write(str(number), picture(number), {"tags": []})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_until_stopped()
    assert [path.name for path in tmp_path.iterdir()] == ["00000.tar"]


@pytest.mark.parametrize("key", ["", "a.b", "/etc/x", "__x"])
def test_a_key_that_would_not_come_back_is_refused(tmp_path: Path, key: str):
    with pytest.raises(StylesimError, match="The key of a sample must have no dot"), ShardWriter(tmp_path) as writer:
        writer.write(key, b"", {})


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


def test_indexing_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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


def test_problems_are_told_when_indexing(tmp_path: Path):
    write_tar(
        tmp_path / "0.tar",
        {"a.jpg": picture(0), "b.json": {"tags": []}, "c.jpg": b"", "c.json": {}, "a.png": b"", "a.json": {}},
    )
    problems = index_shards(tmp_path, show=False)
    assert any("1 samples with no labels" in problem for problem in problems)
    assert any("1 samples with no image" in problem for problem in problems)
    assert any("keys occur more than once, such as 0/a" in problem for problem in problems)


def test_items_come_in_order_and_are_shared_among_ranks(tmp_path: Path):
    one, two = write_root(tmp_path / "a", 10, size=4), write_root(tmp_path / "b", 5, size=4)
    items = read_shards([one, two])
    ids = [item.id for item in items]
    assert len(items) == len(ids) == 15
    assert ids[0] == "a/00000/00000"
    assert ids[-1] == "b/00001/00004"
    shares = [[item.id for item in read_shards([one, two], rank, 4)] for rank in range(4)]
    assert shares == [ids[rank::4] for rank in range(4)]
    assert [len(read_shards([one, two], rank, 4)) for rank in range(4)] == [4, 4, 4, 3]
    first = next(iter(items))
    assert (first.tags, first.content, first.image) == (["set:0"], "c0", picture(0))
    assert next(iter(read_shards(one, images=False))).image is None


def test_an_index_is_read_from_a_command(tmp_path: Path):
    write_root(tmp_path / "train", 10)
    assert load_index(Root(f"pipe:cat {tmp_path}/train", "train")).count == 10
