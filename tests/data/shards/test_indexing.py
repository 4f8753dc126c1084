"""The index of shards: what it holds, and how it is made."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from corpus import encoded_image, write_root, write_tar

from stylesim.core.errors import DataError
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
        {"a.jpg": encoded_image(0), "b.json": {"tags": []}, "c.jpg": b"", "c.json": {}, "a.png": b"", "a.json": {}},
    )
    problems = index_shards(tmp_path, show=False)
    assert any("1 samples with no labels" in problem for problem in problems)
    assert any("1 samples with no image" in problem for problem in problems)
    assert any("keys occur more than once, such as 0/a" in problem for problem in problems)


def test_an_index_can_be_read_from_a_command(tmp_path: Path):
    write_root(tmp_path / "train", 10)
    assert load_index(Root(f"pipe:cat {tmp_path}/train", "train")).count == 10


def test_an_index_of_broken_shards_says_what_is_broken(tmp_path: Path):
    (tmp_path / "0.tar").write_bytes(b"no tar" * 1000)
    (tmp_path / "1.tar").write_bytes(b"")
    index_shards(tmp_path, show=False)
    with pytest.raises(
        DataError, match=r"has no image: .* 2 shards in which none was found. 0.tar breaks off after 0 s"
    ):
        load_index(Root(str(tmp_path), "x"))
    index = json.loads((tmp_path / "index.json").read_text())
    del index["problems"]  # as an earlier version wrote it
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="Index it again to see what is broken"):
        load_index(Root(str(tmp_path), "x"))


def test_shards_that_are_passed_over_for_their_names_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_root(tmp_path, 10, size=5)
    for name in ("00001 (1).tar", "X.TAR", "old.tgz", ".hidden.tar"):
        (tmp_path / name).write_bytes((tmp_path / "00001.tar").read_bytes())
    assert load_index(Root(str(tmp_path), "x")).count == 10
    assert (
        "3 files look like shards and are not read because of their names (00001 (1).tar, X.TAR, old.tgz)"
        in caplog.text
    )


def test_a_folder_of_misnamed_shards_says_so(tmp_path: Path):
    write_tar(tmp_path / "A.TAR", {"a.jpg": b"", "a.json": {}})
    for call in (lambda: index_shards(tmp_path), lambda: load_index(Root(str(tmp_path), "x"))):
        with pytest.raises(DataError, match=r"1 files look like shards .* \(A\.TAR\): rename"):
            call()


def test_labels_of_an_older_index_are_read_in_one_spelling(tmp_path: Path):
    names = ["Cézanne", unicodedata.normalize("NFD", "Cézanne"), " Cézanne"]
    members = {
        f"{i}.{end}": {"tags": [name]} if end == "json" else encoded_image(i)
        for i, name in enumerate(names)
        for end in ("jpg", "json")
    }
    write_tar(tmp_path / "0.tar", members)
    index_shards(tmp_path, show=False)
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["tags"] == {"Cézanne": 3}
    index["tags"] = dict.fromkeys(names, 1)
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert load_index(Root(str(tmp_path), "x")).tags == {"Cézanne": 3}


def test_the_home_folder_is_found_by_its_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_root(tmp_path / "train", 4)
    (tmp_path / "train" / "index.json").unlink()
    monkeypatch.setenv("HOME", str(tmp_path))
    index_shards("~/train", show=False)
    assert load_index(Root("~/train", "train")).count == 4
