"""A user's own images, in a folder or a table."""

from __future__ import annotations

import logging
import os
import unicodedata
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from corpus import encoded_image

from stylesim.core.errors import StylesimError
from stylesim.core.stages.stage_parts import part_paths
from stylesim.curation.image_locator import read_image_bytes
from stylesim.curation.sources.local_files import folder
from stylesim.curation.stage import Stage, read_stage


def write_folder(root: Path) -> Path:
    (root / "b").mkdir(parents=True)
    (root / "b/2.jpg").write_bytes(encoded_image(2, 50, 20))
    (root / "b/2.txt").write_text("by Claude Monet\n")
    (root / "a.png").write_bytes(encoded_image(1, kind="PNG"))
    (root / "broken.jpg").write_bytes(b"not an image")
    (root / ".hidden.jpg").write_bytes(encoded_image(3))
    return root


def stage(root: Path) -> Stage:
    return Stage(root / "1-sources", {}, processes=1, show=False)


def test_a_folder_is_read_with_its_text_files(tmp_path: Path):
    write_folder(tmp_path / "mine")
    made = stage(tmp_path)
    assert folder(made, path=str(tmp_path / "mine"), rows=2) == {"images": 2, "not_an_image": 1, "rows": 3}
    rows = read_stage(made.folder).to_pylist()
    assert [(r["id"], r["caption"], r["width"], r["height"]) for r in rows] == [
        ("a.png", None, 40, 30),
        ("b/2.jpg", "by Claude Monet", 50, 20),
    ]
    assert read_image_bytes(rows[1]["image"]) == encoded_image(2, 50, 20)
    assert len(part_paths(made.folder)) == 2
    assert pq.read_table(made.folder / "dropped-00001.parquet")["id"].to_pylist() == ["broken.jpg"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_a_table_is_read_in_every_format(tmp_path: Path, kind: str):
    write_folder(tmp_path / "mine")
    frame = pd.DataFrame(
        {
            "Image": ["b/2.jpg", "a.png", "a.png", "gone.jpg"],
            "TEXT": ["by Mucha", "", "again", "lost"],
            "content": ["lily", "", "", ""],
            "tags": ["artist:x|medium:y", "", "", ""],
        }
    )
    table = tmp_path / f"mine/table.{kind}"
    if kind == "parquet":
        frame.to_parquet(table)
    else:
        frame.to_csv(table, sep="\t" if kind == "tsv" else ",", index=False)
    made = stage(tmp_path)
    assert folder(made, path=str(table)) == {"images": 2, "not_an_image": 1, "rows": 3}
    first, second = read_stage(made.folder).to_pylist()
    assert (first["id"], first["caption"], first["content"]) == ("b/2.jpg", "by Mucha", "lily")
    assert first["tags"] == ["artist:x", "medium:y"]
    assert not second["caption"]
    assert not second["tags"]


def test_a_missing_or_empty_source_is_refused(tmp_path: Path):
    with pytest.raises(StylesimError, match="there is no folder and no table"):
        folder(stage(tmp_path), path=str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StylesimError, match="contains no image"):
        folder(stage(tmp_path), path=str(tmp_path / "empty"))
    (tmp_path / "bad.csv").write_text("title\nx\n")
    with pytest.raises(StylesimError, match="no column that names the images"):
        folder(stage(tmp_path), path=str(tmp_path / "bad.csv"))


def test_odd_names_captions_and_hidden_folders(tmp_path: Path):
    root = tmp_path / "mine"
    for name in (b"\xe9.jpg", b"\xe8.jpg", b"b.jfif", b".hidden/x.jpg", b"@eaDir/x.jpg", b"walk.gif/c.jpg", b"d.jpg"):
        file = Path(os.fsdecode(os.fsencode(root) + b"/" + name))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded_image(1))
    (root / "b.txt").write_text("by Cézanne", encoding="utf-16")
    (root / "d.txt").write_bytes("Малевич, чёрный".encode("cp1251"))
    (root / "walk.gif" / "c.txt").write_bytes("Paul Cézanne".encode("latin-1"))
    made = stage(tmp_path)
    assert folder(made, path=str(root)) == {
        "images": 5,
        "rows": 5,
        "captions_not_utf8": 1,
        "captions_unreadable": 1,
    }
    rows = read_stage(made.folder).to_pylist()
    assert [(row["id"], row["caption"]) for row in rows] == [
        ("b.jfif", "by Cézanne"),
        ("d.jpg", None),
        ("walk.gif/c.jpg", "Paul Cézanne"),
        (r"\xe8.jpg", None),
        (r"\xe9.jpg", None),
    ]
    assert all(read_image_bytes(row["image"]) == encoded_image(1) for row in rows)


@pytest.mark.parametrize("heading", ["tag", "Labels", " label "])
def test_tags_are_read_under_their_usual_names(tmp_path: Path, heading: str):
    write_folder(tmp_path / "mine")
    names = [unicodedata.normalize("NFD", "artist:Cézanne"), "medium:oil; nan"]
    frame = pd.DataFrame({"file name": ["b/2.jpg", "a.png"], heading: names, "artist": ["x", "y"]})
    frame.to_csv(tmp_path / "mine/T.CSV", index=False)
    made = stage(tmp_path)
    folder(made, path=str(tmp_path / "mine/T.CSV"))
    assert [row["tags"] for row in read_stage(made.folder).to_pylist()] == [["artist:Cézanne"], ["medium:oil"]]


def test_other_columns_of_labels_become_tags_of_their_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_folder(tmp_path / "mine")
    columns = {"path": ["a.png", "b/2.jpg"], "Painter": ["Claude Monet | The Nabis", None], "style": [3, None]}
    pd.DataFrame(columns).to_csv(tmp_path / "mine/t.csv", index=False)
    made = stage(tmp_path)
    with caplog.at_level(logging.INFO):
        folder(made, path=str(tmp_path / "mine/t.csv"))
    assert [row["tags"] for row in read_stage(made.folder).to_pylist()] == [
        ["artist:claude monet", "artist:nabis", "style:3"],
        None,
    ]
    assert "tags are made of the columns painter, style" in caplog.text
