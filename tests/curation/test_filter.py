"""The filter keeps what its rules keep when they are applied row by row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from corpus import encoded_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stage_files import read_dropped, read_files, write_stage

from stylesim.curation.filter import REASONS, filter_images
from stylesim.curation.stage import Stage, read_stage


def run_filter(
    source: Path, folder: Path, **options: Any
) -> tuple[dict[str, Any], dict[str, list[str]], dict[str, str]]:
    stage = Stage(folder, options, source, processes=1, show=False)
    counts = filter_images(stage, **options)
    rows = read_stage(folder).to_pylist()
    return counts, {row["id"]: row["tags"] for row in rows}, read_dropped(folder)


rows = st.lists(
    st.fixed_dictionaries(
        {
            "width": st.none() | st.integers(1, 40),
            "height": st.integers(1, 40),
            "aesthetic": st.none() | st.sampled_from([4.0, 5.5, 7.0]),
            "nsfw": st.none() | st.sampled_from(["NSFW", "unlikely", "0.9000", "0.1000"]),
            "tags": st.none() | st.lists(st.sampled_from("abcde"), max_size=4),
        }
    ),
    max_size=30,
)


@settings(max_examples=25)
@given(rows, rows, st.sampled_from([None, 4, 8]), st.sampled_from([1, 3]), st.sampled_from([None, ["nsfw"], 0.5]))
def test_the_filter_equals_its_rules_applied_row_by_row(tmp_path_factory, first, second, most, least, nsfw):
    tmp_path = tmp_path_factory.mktemp("filter")
    given_rows = [{"id": f"{n}", **row} for n, row in enumerate(first + second)]
    source = write_stage([given_rows[: len(first)], given_rows[len(first) :]], tmp_path / "2-tags")
    rules = {"min_size": 10, "min_aesthetic": 5.0, "nsfw": nsfw}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_write_plots", "_write_samples"):  # slow, and tested below
            patch.setattr(f"stylesim.curation.filter.{name}", lambda *_, **__: None)
        options = rules | {"max_tag_images": most, "min_tag_images": least}
        counts, kept, dropped = run_filter(source, tmp_path / "3-filter", **options)

    def broken(row: dict[str, Any]) -> str | None:
        unsafe = ("NSFW",) if isinstance(nsfw, list) else ("0.9000",) if nsfw else ()
        if row["width"] is not None and min(row["width"], row["height"]) < 10:
            return "small"
        if row["aesthetic"] is not None and row["aesthetic"] < 5:
            return "low_aesthetic"
        if row["nsfw"] in unsafe:
            return "nsfw"
        return None if row["tags"] else "untagged"

    passing = [row for row in given_rows if broken(row) is None]
    images = Counter(tag for row in passing for tag in set(row["tags"]))
    good = {tag for tag, n in images.items() if least <= n <= (most or n)}
    allowed = {row["id"]: [t for t in dict.fromkeys(row["tags"]) if t in good] for row in passing}
    assert kept == {name: tags for name, tags in allowed.items() if tags}
    assert dropped == {row["id"]: broken(row) or "only_dropped_tags" for row in given_rows if row["id"] not in kept}
    assert counts["images"] == len(kept)
    assert counts["before"] == len(given_rows) == len(kept) + len(dropped)
    assert {reason: counts[reason] for reason in REASONS} == {**dict.fromkeys(REASONS, 0), **Counter(dropped.values())}
    assert (counts["tags_before"], counts["tags"]) == (len(images), len(good))
    assert counts.get("size_unknown", 0) == sum(row["width"] is None for row in given_rows)


def test_previews_are_written_and_two_runs_give_the_same_bytes(tmp_path: Path):
    files = []
    for number in range(6):
        file = tmp_path / f"{number}.jpg"
        file.write_bytes(encoded_image(number))
        files.append({"id": f"{number}", "image": str(file), "width": 40 - number, "height": 30, "tags": ["a"]})
    files[0]["tags"], files[1]["width"] = ["b"], 8
    files[2]["image"] = str(tmp_path / "gone.jpg")
    source = write_stage([files, []], tmp_path / "2-tags")
    for name in ("once", "twice"):
        run_filter(source, tmp_path / name, min_tag_images=2, min_size=16)
    once, twice = (read_files(tmp_path / name) for name in ("once", "twice"))
    assert once == twice
    assert once["tags.csv"].decode().splitlines() == ['"tag","images","kept"', '"a",4,true', '"b",1,false']
    for name in ("tags.png", "sizes.png", "samples.png"):
        assert Image.open(tmp_path / "once" / name).size > (100, 100)


def test_an_empty_input_gives_an_empty_output(tmp_path: Path):
    source = write_stage([], tmp_path / "2-tags")
    counts, kept, dropped = run_filter(source, tmp_path / "3-filter")
    assert (kept, dropped, counts["tags"]) == ({}, {}, 0)
    unsearched = write_stage([[{"id": "x", "tags": None}]], tmp_path / "other")
    counts, kept, dropped = run_filter(unsearched, tmp_path / "4-filter", nsfw=0.5)
    assert dropped == {"x": "untagged"}
    assert counts["nsfw_unknown"] == 1
    with pytest.raises(ValueError, match="not finished"):
        run_filter(tmp_path / "none", tmp_path / "5-filter")
