"""Shards as the writer leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpus import encoded_image, write_root
from webdataset.compat import WebDataset

from stylesim.core.errors import StylesimError
from stylesim.data.shards.shard_writer import ShardWriter


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_plain_webdataset_reads_the_shards(tmp_path: Path, suffix: str):
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


def test_an_interrupted_writer_leaves_no_incomplete_shard(tmp_path: Path):
    def write_until_stopped() -> None:
        with ShardWriter(tmp_path, size=2) as writer:
            for number in range(3):
                writer.write(str(number), encoded_image(number), {"tags": []})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_until_stopped()
    assert [path.name for path in tmp_path.iterdir()] == ["00000.tar"]


@pytest.mark.parametrize("key", ["", "a.b", "/etc/x", "__x"])
def test_a_key_that_webdataset_would_change_is_refused(tmp_path: Path, key: str):
    with pytest.raises(StylesimError, match="The key of a sample must have no dot"), ShardWriter(tmp_path) as writer:
        writer.write(key, b"", {})
