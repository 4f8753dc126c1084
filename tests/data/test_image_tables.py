"""Tables of images: their columns, and what they return."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from corpus import encoded_image

from stylesim.core.errors import DataError
from stylesim.data.datasets.folder import find_samples
from stylesim.data.image_tables import read_image_table, write_image_table
from stylesim.data.sample import Sample


@pytest.mark.parametrize("heading", ["path", "Image", " NAME ", "file", "File Name", "image_path", "filename"])
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
    with pytest.raises(DataError, match=r"expected one of path, .*, name, got url, style"):
        read_image_table(tmp_path / "t.tsv")


def test_a_table_returns_its_samples_under_their_own_keys(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "1.jpg").write_bytes(encoded_image(1))
    sample = Sample("1.jpg", tmp_path / "far" / "1.jpg", ["artist:a; b|c", "genre:x"], None, "s")
    table = write_image_table([sample], tmp_path / "run" / "q.parquet")
    (again,) = find_samples(table)
    assert again == sample._replace(id="q/1.jpg", source=table)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["q.parquet"]


def test_two_images_of_one_key_are_both_kept(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(encoded_image(1))
    pd.DataFrame({"path": ["a.jpg", "b.jpg"], "key": ["k", ""]}).to_csv(tmp_path / "t.csv", index=False)
    assert [sample.id for sample in find_samples(tmp_path / "t.csv")] == ["t/b.jpg", "t/k"]


def tags_of(table: Path) -> dict[str, list[str]]:
    return {sample.id.partition("/")[2]: list(sample.tags) for sample in find_samples(table)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of three images."""
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jpg").write_bytes(encoded_image(1))
    return tmp_path


@pytest.mark.parametrize(
    "heading", ["tags", "Tag", "labels", "label", "style", "Artist", "class", "category", " tags", "Class Name"]
)
def test_the_column_of_labels_is_found_by_any_of_its_names(folder: Path, heading: str) -> None:
    pd.DataFrame({"path": ["a.jpg", "b.jpg"], heading: ["x", "y"]}).to_csv(folder / "t.csv", index=False)
    assert tags_of(folder / "t.csv") == {"a.jpg": ["x"], "b.jpg": ["y"]}


def test_a_table_without_labels_names_its_columns(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    pd.DataFrame({"path": ["a.jpg"], "Stil": ["x"], "year": ["1"]}).to_csv(folder / "t.csv", index=False)
    assert tags_of(folder / "t.csv") == {"a.jpg": []}
    assert re.search(r"t\.csv has no column of labels.*expected one of tags, .* got path, stil, year", caplog.text)


def test_of_several_columns_of_labels_it_is_said_which_is_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    pd.DataFrame({"path": ["a.jpg"], "style": ["x"], "artist": ["y"]}).to_csv(folder / "t.csv", index=False)
    with caplog.at_level(logging.INFO):
        assert tags_of(folder / "t.csv") == {"a.jpg": ["y"]}
    assert "the labels are those of artist; not used: style" in caplog.text


@pytest.mark.parametrize("missing", [None, pd.NA, float("nan"), ""])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_missing_value_is_no_label(folder: Path, missing: object, suffix: str) -> None:
    frame = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "tags": pd.Series(["x", missing], dtype=object)})
    if suffix == ".csv":
        frame.to_csv(folder / "t.csv", index=False)
    else:
        frame.convert_dtypes().to_parquet(folder / "t.parquet")
    assert tags_of(folder / f"t{suffix}") == {"a.jpg": ["x"], "b.jpg": []}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("dtype", ["float64", "Int64"])
def test_integers_with_a_gap_stay_integers(folder: Path, suffix: str, dtype: str) -> None:
    frame = pd.DataFrame({"path": ["a.jpg", "b.jpg", "c.jpg"], "label": pd.Series([1, None, 12], dtype=dtype)})
    frame.to_csv(folder / "t.csv", index=False) if suffix == ".csv" else frame.to_parquet(folder / "t.parquet")
    assert tags_of(folder / f"t{suffix}") == {"a.jpg": ["1"], "b.jpg": [], "c.jpg": ["12"]}


def test_decimals_stay_decimals(folder: Path) -> None:
    (folder / "t.csv").write_text("path,label\na.jpg,1.5\nb.jpg,2.0\n")
    assert tags_of(folder / "t.csv") == {"a.jpg": ["1.5"], "b.jpg": ["2.0"]}


def test_spellings_of_one_label_are_one_label(folder: Path) -> None:
    names = ["Cézanne", unicodedata.normalize("NFD", "Cézanne"), " Cézanne\u00a0"]
    pd.DataFrame({"path": ["a.jpg", "b.jpg", "c.jpg"], "artist": names}).to_csv(folder / "t.csv", index=False)
    assert {tag for tags in tags_of(folder / "t.csv").values() for tag in tags} == {"Cézanne"}


def test_a_table_whose_first_thousand_images_are_missing_is_read(folder: Path) -> None:
    paths = [f"gone{number}.jpg" for number in range(1500)] + ["a.jpg", "b.jpg"]
    pd.DataFrame({"path": paths}).to_csv(folder / "t.csv", index=False)
    samples = find_samples(folder / "t.csv")
    assert len(samples) == 1502  # whoever reads them counts the missing ones
    assert sum(isinstance(sample.image, Path) and sample.image.is_file() for sample in samples) == 2


def test_rows_without_a_path_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    pd.DataFrame({"path": ["a.jpg", None, "b.jpg"]}).to_parquet(folder / "t.parquet")
    assert list(tags_of(folder / "t.parquet")) == ["a.jpg", "b.jpg"]
    assert "1 rows have no path, and are left out" in caplog.text


def test_a_suffix_in_capitals_is_a_table(folder: Path) -> None:
    (folder / "T.CSV").write_text("path,tags\na.jpg,x\n")
    assert tags_of(folder / "T.CSV") == {"a.jpg": ["x"]}


def test_paths_of_windows_mean_the_files_of_their_folders(folder: Path) -> None:
    (folder / "monet").mkdir()
    (folder / "a.jpg").rename(folder / "monet" / "0.jpg")
    (folder / "b.jpg").rename(folder / "klee\\0.jpg")  # as Linux unpacks some zips of Windows
    (folder / "t.csv").write_text("path,tags\nmonet\\0.jpg,x\nklee\\0.jpg,y\n")
    assert [sample.image for sample in find_samples(folder / "t.csv")] == [
        folder / "klee\\0.jpg",
        folder / "monet" / "0.jpg",
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252"])
def test_the_encodings_of_spreadsheets_are_recognised(folder: Path, encoding: str) -> None:
    (folder / "t.csv").write_bytes("path,artist\na.jpg,Paul Cézanne\nb.jpg,Zoë\n".encode(encoding))
    assert tags_of(folder / "t.csv") == {"a.jpg": ["Paul Cézanne"], "b.jpg": ["Zoë"]}


@pytest.mark.parametrize("encoding", ["cp1251", "shift-jis"])
def test_a_table_of_unknown_encoding_is_refused(folder: Path, encoding: str) -> None:
    text = {"cp1251": "Казимир Малевич", "shift-jis": "葛飾北斎"}[encoding]
    (folder / "t.csv").write_bytes(f"path,artist\na.jpg,{text}\n".encode(encoding))
    with pytest.raises(DataError, match=r"not text in UTF-8 or UTF-16 \(line 2 has the byte 0x.*: save it as UTF-8"):
        find_samples(folder / "t.csv")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_csv_may_be_separated_by_other_signs(folder: Path, separator: str) -> None:
    (folder / "t.csv").write_text(f"path{separator}tags\na.jpg{separator}x\n")
    assert tags_of(folder / "t.csv") == {"a.jpg": ["x"]}


def test_a_row_with_more_cells_than_columns_is_refused(folder: Path) -> None:
    (folder / "t.csv").write_text("path,tags\na.jpg,x,y\nb.jpg,x,y\n")
    with pytest.raises(DataError, match="cannot be read as a table"):
        find_samples(folder / "t.csv")


def test_names_that_are_not_utf8_are_written_and_found_again(tmp_path: Path) -> None:
    for name in (b"\xe9.jpg", b"\xe8.jpg"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(encoded_image(1))
    first = find_samples(tmp_path)
    assert [sample.id for sample in first] == [f"{tmp_path.name}/\\xe8.jpg", f"{tmp_path.name}/\\xe9.jpg"]
    table = write_image_table([sample._replace(id=sample.id.split("/")[1]) for sample in first], tmp_path / "t.parquet")
    again = find_samples(table)
    assert [sample.id for sample in again] == ["t/\\xe8.jpg", "t/\\xe9.jpg"]
    assert [sample.image for sample in again] == [sample.image for sample in first]
