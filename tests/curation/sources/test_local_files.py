"""A user's own images, in a folder or a table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from corpus import picture

from stylesim.core.errors import StylesimError
from stylesim.curation.image_locator import read_image_bytes
from stylesim.curation.sources.local_files import folder
from stylesim.curation.stage import Stage, part_paths, read_stage


def write_folder(root: Path) -> Path:
    (root / "b").mkdir(parents=True)
    (root / "b/2.jpg").write_bytes(picture(2, 50, 20))
    (root / "b/2.txt").write_text("by Claude Monet\n")
    (root / "a.png").write_bytes(picture(1, kind="PNG"))
    (root / "broken.jpg").write_bytes(b"not an image")
    (root / ".hidden.jpg").write_bytes(picture(3))
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
    assert read_image_bytes(rows[1]["image"]) == picture(2, 50, 20)
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
