"""Tables of images: their columns, and what they return."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from corpus import picture

from stylesim.core.errors import DataError
from stylesim.data.datasets.folder import find_samples
from stylesim.data.image_tables import read_image_table, split_tags, write_image_table
from stylesim.data.sample import Sample


@pytest.mark.parametrize("heading", ["path", "Image", " NAME ", "file"])
def test_the_column_of_paths_is_found_by_any_of_its_names(tmp_path: Path, heading: str) -> None:
    pd.DataFrame({"Artist": ["a"], heading: ["1.jpg"]}).to_csv(tmp_path / "t.csv", index=False)
    frame = read_image_table(tmp_path / "t.csv")
    assert list(frame) == ["artist", "path"]
    assert frame["path"].tolist() == ["1.jpg"]


def test_of_two_columns_with_one_name_the_first_is_kept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,Path\na.jpg,b.jpg\n")
    assert read_image_table(tmp_path / "t.csv")["path"].tolist() == ["a.jpg"]


def test_a_table_without_paths_names_its_columns(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("url\tstyle\nx\ty\n")
    with pytest.raises(DataError, match="expected one of path, image, name, file, got url, style"):
        read_image_table(tmp_path / "t.tsv")


@pytest.mark.parametrize(
    ("cell", "tags"),
    [("a|b; c", ["a", "b", "c"]), ("", []), (None, []), (float("nan"), []), (["a; b"], ["a; b"]), (3, ["3"])],
)
def test_the_tags_of_a_cell(cell: object, tags: list[str]) -> None:
    assert split_tags(cell) == tags


def test_a_table_returns_its_samples_under_their_own_keys(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "1.jpg").write_bytes(picture(1))
    sample = Sample("1.jpg", tmp_path / "far" / "1.jpg", ["artist:a; b|c", "genre:x"], None, "s")
    table = write_image_table([sample], tmp_path / "run" / "q.parquet")
    (again,) = find_samples(table)
    assert again == sample._replace(id="q/1.jpg", source=table)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["q.parquet"]


def test_two_images_of_one_key_are_both_kept(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(picture(1))
    pd.DataFrame({"path": ["a.jpg", "b.jpg"], "key": ["k", ""]}).to_csv(tmp_path / "t.csv", index=False)
    assert [sample.id for sample in find_samples(tmp_path / "t.csv")] == ["t/b.jpg", "t/k"]
