"""Every image that deduplication has kept is in one shard, for training or as a query, and the data card says so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from corpus import encoded_image, write_tar
from hypothesis import given
from hypothesis import strategies as st
from stage_files import read_dropped, read_files, write_stage

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
    """Thirty images of five artists: files, members of a tar, a large one, and two that have been damaged since."""
    members: dict[str, bytes | dict] = {f"{n:03d}.jpg": encoded_image(n) for n in range(15, 30)}
    tar = write_tar(tmp_path / "images" / "00000.tar", members)
    rows = []
    for n in range(30):
        file = tmp_path / "images" / f"{n}.png"
        if n < 15:
            file.write_bytes(encoded_image(n, *((400, 300) if n == 3 else (40, 30)), kind="PNG"))
        image = str(file) if n < 15 else f"{tar}::{n:03d}.jpg"
        rows.append({"id": f"{n:03d}", "image": image, "url": f"web/{n}", "tags": [f"artist:{n % 5}", "medium:ink"]})
    (tmp_path / "images" / "7.png").write_bytes(b"not an image")
    rows[20]["image"] = f"{tar}::gone.jpg"
    source = write_stage([rows[:12], rows[12:], []], tmp_path / "4-deduplicate")
    write_json(
        source / "contamination.json",
        {"encoder": "sscd", "threshold": 0.8, "sets": {"wikiart": {"images": 9, "dropped": 4}}},
    )
    return source


def run_shard(source: Path, folder: Path, **options: Any) -> dict[str, Any]:
    return write_shards(Stage(folder, options, source, processes=1, show=False), **options)


def test_every_image_is_in_one_shard_of_its_split(source: Path, tmp_path: Path):
    counts = run_shard(source, tmp_path / "5-shards", shard_size=6, max_size=100, **SPLIT)
    assert counts["damaged"] == 2
    assert (counts["before"], counts["images"], counts["query_images"], counts["query_artists"]) == (30, 28, 4, 2)
    ids = {}
    for split in ("train", "query"):
        index = json.loads((tmp_path / "5-shards" / split / "index.json").read_text())
        assert sum(shard["count"] for shard in index["shards"]) == counts[f"{split}_images"]
        samples = list(read_shards(tmp_path / "5-shards" / split))
        assert max(min(open_image(sample.image).size) for sample in samples) <= 100  # type: ignore[arg-type]
        ids[split] = {original_id(sample): sample.tags for sample in samples}
    assert not ids["train"].keys() & ids["query"].keys()
    expected = {f"{n:03d}": [f"artist:{n % 5}", "medium:ink"] for n in range(30) if n not in (7, 20)}
    assert ids["train"] | ids["query"] == expected
    kept = read_stage(tmp_path / "5-shards").to_pylist()
    assert [row["id"] for row in kept] == list(expected)
    assert kept[0]["url"] == "web/0"
    assert list(read_dropped(tmp_path / "5-shards")) == ["007", "020"]


def original_id(sample: Sample) -> str:
    """Return the id of an image before it was packed, which is part of its key."""
    return re.sub(r".*_", "", sample.id)


def test_shards_have_equal_sizes_and_a_shuffled_order(source: Path, tmp_path: Path):
    run_shard(source, tmp_path / "5-shards", shard_size=10, query_artists=0)
    assert not (tmp_path / "5-shards" / "query").exists()
    shards = json.loads((tmp_path / "5-shards" / "train" / "index.json").read_text())["shards"]
    assert sum(10 - shard["count"] for shard in shards) == 2, "full except for the two damaged images"
    order = [original_id(sample) for sample in read_shards(tmp_path / "5-shards" / "train")]
    assert order != sorted(order)


def test_the_data_card_has_counts_settings_rights_and_cleared_sets(source: Path, tmp_path: Path):
    run_shard(source, tmp_path / "5-shards", shard_size=6, **SPLIT)
    card = (tmp_path / "5-shards" / "README.md").read_text()
    assert "28 images with a short side of at most 384 px" in card
    assert "cleared of wikiart: 4 images within 0.8 (inner product of sscd) of its 9 were dropped" in card
    assert re.search(r"\| medium:ink +\| +24 \|", card)
    assert "### 4-deduplicate" in card
    assert '"shard_size": 6' in card
    assert "gives no licence" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("interrupted_at", [1, 9, 30])
def test_an_interrupted_stage_ends_with_the_same_bytes(
    interrupted_at: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    counts = run_shard(source, tmp_path / "5-shards", shard_size=6, **SPLIT)
    opened = []

    def open_or_stop(data: bytes, **options: Any) -> Any:
        opened.append(data)
        if len(opened) == interrupted_at:
            raise KeyboardInterrupt
        return open_image(data, **options)

    monkeypatch.setattr(pack, "open_image", open_or_stop)
    if interrupted_at < 30:  # while packing the 28 readable images; otherwise after it
        with pytest.raises(KeyboardInterrupt):
            run_shard(source, tmp_path / "again" / "5-shards", shard_size=6, **SPLIT)
    else:
        monkeypatch.setattr("stylesim.curation.shard.data_card", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_shard(source, tmp_path / "again" / "5-shards", shard_size=6, **SPLIT)
        monkeypatch.undo()
    (tmp_path / "again" / "4-deduplicate").symlink_to(source)
    assert run_shard(source, tmp_path / "again" / "5-shards", shard_size=6, **SPLIT) == counts
    assert read_files(tmp_path / "again" / "5-shards") == read_files(tmp_path / "5-shards")
    assert run_shard(source, tmp_path / "5-shards", shard_size=6, **SPLIT) == counts


def test_an_input_without_images_is_refused(tmp_path: Path):
    empty = write_stage([[]], tmp_path / "4-deduplicate")
    with pytest.raises(StylesimError, match="no image left to pack"):
        run_shard(empty, tmp_path / "5-shards")


@given(
    st.lists(st.lists(st.sampled_from(["artist:a", "artist:b", "artist:c", "medium:d"]), unique=True), max_size=40),
    st.integers(0, 3),
    st.integers(0, 4),
)
def test_every_query_tag_keeps_as_many_training_images(tags: list[list[str]], artists: int, images: int):
    samples = [Sample(f"{n}", None, row, None, "") for n, row in enumerate(tags)]
    queries = query_split(samples, "artist:*", artists, images)
    assert queries == query_split(samples[::-1], "artist:*", artists, images)
    by_id = {sample.id: sample.tags for sample in samples}
    assert all(tag in by_id[name] for name, tag in queries.items())
    # An image of several artists counts for none of them.
    alone = [[tag for tag in row if tag.startswith("artist:")] for row in tags]
    common = {tag: alone.count([tag]) for tag in ("artist:a", "artist:b", "artist:c")}
    for tag in set(queries.values()):
        assert list(queries.values()).count(tag) <= images <= common[tag] / 2
    assert len(set(queries.values())) <= artists
    if artists and images and queries:
        assert max(common.values()) == max(common[tag] for tag in queries.values())
