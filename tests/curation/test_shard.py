"""What deduplication has kept stands in the shards once, to train on or as a query, and the card tells how."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from corpus import picture, write_tar
from hypothesis import given
from hypothesis import strategies as st
from planted import stage_of

from stylesim.core.errors import StylesimError
from stylesim.core.files import write_json
from stylesim.core.images import open_image
from stylesim.curation.shard import query_split, write_shards
from stylesim.curation.stage import Stage, read_stage
from stylesim.data.sample import Sample
from stylesim.data.shards import packing as pack
from stylesim.data.shards.shard_samples import read_shards

SPLIT = {"query_artists": 2, "query_images": 2}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Thirty images of five artists: files, members of a tar, a large one, and two that have broken since."""
    members: dict[str, bytes | dict] = {f"{n:03d}.jpg": picture(n) for n in range(15, 30)}
    tar = write_tar(tmp_path / "images" / "00000.tar", members)
    rows = []
    for n in range(30):
        file = tmp_path / "images" / f"{n}.png"
        if n < 15:
            file.write_bytes(picture(n, *((400, 300) if n == 3 else (40, 30)), kind="PNG"))
        image = str(file) if n < 15 else f"{tar}::{n:03d}.jpg"
        rows.append({"id": f"{n:03d}", "image": image, "url": f"web/{n}", "tags": [f"artist:{n % 5}", "medium:ink"]})
    (tmp_path / "images" / "7.png").write_bytes(b"no image")
    rows[20]["image"] = f"{tar}::gone.jpg"
    source = stage_of([rows[:12], rows[12:], []], tmp_path / "4-deduplicate")
    write_json(
        source / "contamination.json",
        {"encoder": "sscd", "threshold": 0.8, "sets": {"wikiart": {"images": 9, "dropped": 4}}},
    )
    return source


def sharded(source: Path, folder: Path, **options: Any) -> dict[str, Any]:
    return write_shards(Stage(folder, options, source, processes=1, show=False), **options)


def test_every_image_stands_in_one_shard_of_its_split(source: Path, tmp_path: Path):
    counts = sharded(source, tmp_path / "5-shards", shard_size=6, max_size=100, **SPLIT)
    assert counts["damaged"] == 2
    assert (counts["before"], counts["images"], counts["query_images"], counts["query_artists"]) == (30, 28, 4, 2)
    ids = {}
    for split in ("train", "query"):
        index = json.loads((tmp_path / "5-shards" / split / "index.json").read_text())
        assert sum(shard["count"] for shard in index["shards"]) == counts[f"{split}_images"]
        items = list(read_shards(tmp_path / "5-shards" / split))
        assert max(min(open_image(item.image).size) for item in items) <= 100  # type: ignore[arg-type]
        ids[split] = {name(item): item.tags for item in items}
    assert not ids["train"].keys() & ids["query"].keys()
    expected = {f"{n:03d}": [f"artist:{n % 5}", "medium:ink"] for n in range(30) if n not in (7, 20)}
    assert ids["train"] | ids["query"] == expected
    kept = read_stage(tmp_path / "5-shards").to_pylist()
    assert [row["id"] for row in kept] == list(expected)
    assert kept[0]["url"] == "web/0"
    lost = [r["id"] for f in sorted((tmp_path / "5-shards").glob("dropped-*")) for r in pq.read_table(f).to_pylist()]
    assert lost == ["007", "020"]


def name(item: Sample) -> str:
    """The id that an image had before it was packed, which its key keeps readable."""
    return re.sub(r".*_", "", item.id)


def test_shards_are_of_equal_size_and_do_not_follow_the_input(source: Path, tmp_path: Path):
    sharded(source, tmp_path / "5-shards", shard_size=10, query_artists=0)
    assert not (tmp_path / "5-shards" / "query").exists()
    shards = json.loads((tmp_path / "5-shards" / "train" / "index.json").read_text())["shards"]
    assert sum(10 - shard["count"] for shard in shards) == 2, "full but for the two that have broken"
    order = [name(item) for item in read_shards(tmp_path / "5-shards" / "train")]
    assert order != sorted(order)


def test_the_card_tells_counts_settings_rights_and_what_was_cleared(source: Path, tmp_path: Path):
    sharded(source, tmp_path / "5-shards", shard_size=6, **SPLIT)
    card = (tmp_path / "5-shards" / "README.md").read_text()
    assert "28 images with a short side of at most 384 px" in card
    assert "cleared of wikiart: 4 images within 0.8 (inner product of sscd) of its 9 were dropped" in card
    assert "| medium:ink | 24 |" in card
    assert "### 4-deduplicate" in card
    assert '"shard_size": 6' in card
    assert "gives no licence" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("stopped", [1, 9, 30])
def test_stopped_anywhere_and_twice_are_the_same_bytes(
    stopped: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    counts = sharded(source, tmp_path / "5-shards", shard_size=6, **SPLIT)
    opened = []

    def opens(data: bytes) -> Any:
        opened.append(data)
        if len(opened) == stopped:
            raise KeyboardInterrupt
        return open_image(data)

    monkeypatch.setattr(pack, "open_image", opens)
    if stopped < 30:  # images that can be read
        with pytest.raises(KeyboardInterrupt):
            sharded(source, tmp_path / "again" / "5-shards", shard_size=6, **SPLIT)
    else:
        monkeypatch.setattr("stylesim.curation.shard.data_card", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sharded(source, tmp_path / "again" / "5-shards", shard_size=6, **SPLIT)
        monkeypatch.undo()
    (tmp_path / "again" / "4-deduplicate").symlink_to(source)
    assert sharded(source, tmp_path / "again" / "5-shards", shard_size=6, **SPLIT) == counts
    ours, theirs = (
        {f.relative_to(folder): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
        for folder in (tmp_path / "again" / "5-shards", tmp_path / "5-shards")
    )
    assert ours == theirs
    assert sharded(source, tmp_path / "5-shards", shard_size=6, **SPLIT) == counts


def test_without_an_image_there_are_no_shards(tmp_path: Path):
    nothing = stage_of([[]], tmp_path / "4-deduplicate")
    with pytest.raises(StylesimError, match="no image left to pack"):
        sharded(nothing, tmp_path / "5-shards")


@given(
    st.lists(st.lists(st.sampled_from(["artist:a", "artist:b", "artist:c", "medium:d"]), unique=True), max_size=40),
    st.integers(0, 3),
    st.integers(0, 4),
)
def test_queries_leave_training_as_many(tags: list[list[str]], artists: int, images: int):
    items = [Sample(f"{n}", None, mine, None, "") for n, mine in enumerate(tags)]
    queries = query_split(items, "artist:*", artists, images)
    assert queries == query_split(items[::-1], "artist:*", artists, images)
    by_id = {item.id: item.tags for item in items}
    assert all(tag in by_id[name] for name, tag in queries.items())
    common = {tag: sum(tag in mine for mine in tags) for tag in ("artist:a", "artist:b", "artist:c")}
    for tag in set(queries.values()):
        assert list(queries.values()).count(tag) <= images <= common[tag] / 2
    assert len(set(queries.values())) <= artists
    if artists and images and queries:
        assert max(common.values()) == max(common[tag] for tag in queries.values())
