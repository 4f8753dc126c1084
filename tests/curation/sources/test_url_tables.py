"""Tables of URLs in the formats in which they are published."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylesim.core.errors import StylesimError
from stylesim.core.stages.stage_parts import part_paths
from stylesim.curation.sources.url_tables import contrastyles, laion
from stylesim.curation.stage import Stage, read_stage


def stage(folder: Path, **settings: object) -> Stage:
    return Stage(folder / "1-sources", settings, processes=1, show=False)


def write_laion(path: Path, count: int, *, upper: bool = True) -> Path:
    """Write the columns of LAION-Aesthetics, in row groups of 30."""
    table = pa.table(
        {
            "URL": [f"https://example.org/{n}.jpg" if n % 10 else None for n in range(count)],
            "TEXT": [f"caption {n}" for n in range(count)],
            "WIDTH": pa.array([512.0 if n % 7 else None for n in range(count)], pa.float64()),
            "HEIGHT": pa.array([300 + n for n in range(count)], pa.int64()),
            "similarity": [0.3] * count,
            "hash": pa.array(range(count), pa.int64()),
            "punsafe": pa.array([n / 1000 for n in range(count)], pa.float64()),
            "pwatermark": [0.1] * count,
            "AESTHETIC_SCORE": pa.array([6.5] * count, pa.float64()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if not upper:
        table = table.rename_columns([name.lower() for name in table.column_names])
    pq.write_table(table, path, row_group_size=30)
    return path


def test_laions_columns_are_read_in_any_case(tmp_path: Path):
    write_laion(tmp_path / "meta/a.parquet", 70)
    write_laion(tmp_path / "meta/b.parquet", 5, upper=False)
    made = stage(tmp_path)
    assert laion(made, path=str(tmp_path / "meta"), rows=20) == {"images": 67, "rows": 75, "without_url": 8}
    rows = read_stage(made.folder).to_pylist()
    assert [row["id"] for row in rows[:2]] == ["a/000000001", "a/000000002"]
    assert len({row["id"] for row in rows}) == 67
    first = rows[0]
    assert (first["url"], first["caption"]) == ("https://example.org/1.jpg", "caption 1")
    assert (first["width"], first["height"], first["nsfw"]) == (512, 301, "0.0010")
    assert first["aesthetic"] == pytest.approx(6.5)
    assert first["image"] is first["tags"] is None
    assert rows[6]["id"] == "a/000000007"
    assert rows[6]["width"] is None
    assert len(part_paths(made.folder)) == 6, "row groups of 30, 30, 10 and 5 rows, read 20 rows at a time"


def test_a_stage_of_another_curation_can_be_a_source(tmp_path: Path):
    write_laion(tmp_path / "a.parquet", 20)
    before = stage(tmp_path / "first")
    laion(before, path=str(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"id": ["x"], "reason": ["small"]}), before.folder / "dropped-00000.parquet")
    again = stage(tmp_path / "second")
    laion(again, path=str(before.folder))
    assert read_stage(again.folder) == read_stage(before.folder)


def test_a_missing_or_damaged_parquet_file_is_refused(tmp_path: Path):
    with pytest.raises(StylesimError, match="there is no parquet file at"):
        laion(stage(tmp_path), path=str(tmp_path / "nothing"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(StylesimError, match=r"bad.parquet cannot be read as parquet"):
        laion(stage(tmp_path), path=str(tmp_path / "bad.parquet"))


def write_contrastyles(path: Path, tags: list, **changes: list) -> Path:
    """Write the columns of the published train.parquet, as strings except for tags that are lists."""
    count = len(tags)
    columns = {
        "key": [f"{n:09d}" for n in range(count)],
        "url": [f"https://example.org/{n}.jpg" for n in range(count)],
        "caption": [f"caption {n}" for n in range(count)],
        "md5": [f"{n:032x}" for n in range(count)],
        "merged_tags": tags,
        "tags": tags,
    } | changes
    kinds = {
        name: pa.list_(pa.string()) if isinstance(values[0], list) else pa.string() for name, values in columns.items()
    }
    pq.write_table(pa.table({name: pa.array(values, kinds[name]) for name, values in columns.items()}), path)
    return path


@pytest.mark.parametrize("write", [json.dumps, repr, ", ".join, list])
def test_contrastyles_is_read_in_every_tag_format(tmp_path: Path, write, caplog: pytest.LogCaptureFixture):
    rows = [["vincent van gogh", "oil painting"], ["arts crafts movement"], ["georgia okeeffe", "My Own Style"]]
    path = write_contrastyles(tmp_path / "train.parquet", [write(tags) for tags in rows])
    made = stage(tmp_path)
    with caplog.at_level("INFO", logger="stylesim"):
        metrics = contrastyles(made, path=str(path))
    assert metrics == {"images": 3, "rows": 3, "unknown_tags": 1}
    table = read_stage(made.folder)
    assert table["tags"].to_pylist() == [
        ["artist:vincent van gogh", "medium:oil painting"],
        ["movement:arts and crafts movement"],
        ["artist:georgia o'keeffe", "tag:my own style"],
    ]
    assert table["id"].to_pylist() == ["000000000", "000000001", "000000002"]
    assert table["md5"].to_pylist()[1] == f"{1:032x}"
    summary = json.loads((made.folder / "summary.json").read_text())
    assert sum(summary["tags"].values()) == 3
    assert all(kind in caplog.text for kind in summary["tags"])


def test_unreadable_tags_and_missing_columns_are_refused(tmp_path: Path):
    path = write_contrastyles(tmp_path / "bad.parquet", ["['pop art']", "['a' 'b']"])
    with pytest.raises(StylesimError, match=r"column merged_tags: 1 rows hold no tags.*First row 1: \"\['a' 'b'\]\""):
        contrastyles(stage(tmp_path), path=str(path))
    with pytest.raises(StylesimError, match="must have the columns url and labels"):
        contrastyles(stage(tmp_path / "other"), path=str(path), column="labels")


def test_ids_are_unique_even_if_keys_are_not(tmp_path: Path):
    path = write_contrastyles(tmp_path / "a.parquet", ["['pop art']"] * 2, key=["0", "0"])
    made = stage(tmp_path)
    contrastyles(made, path=str(path))
    assert read_stage(made.folder)["id"].to_pylist() == [f"{0:032x}", f"{1:032x}"]
    path = write_contrastyles(tmp_path / "b.parquet", ["['pop art']"] * 2, key=["0", "0"], md5=["1", "1"])
    made = stage(tmp_path / "b")
    contrastyles(made, path=str(path))
    assert read_stage(made.folder)["id"].to_pylist() == ["b/000000000", "b/000000001"]
