"""Folders and tars in the format of img2dataset 1.47."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import encoded_image, write_tar

from stylesim.core.errors import StylesimError
from stylesim.curation.image_locator import read_image_bytes
from stylesim.curation.sources.img2dataset import img2dataset
from stylesim.curation.stage import Stage, read_stage

STATUS = {2: ("failed_to_download", "HTTP Error 404: Not Found"), 3: ("failed_to_resize", "Image decoding error")}


def rows_of(shard: int, count: int = 6) -> list[dict]:
    rows = []
    for n in range(count):
        status, message = STATUS.get(n, ("success", None))
        known = {"caption": f"by Claude Monet {n}", "url": f"https://example.org/{n}", "aesthetic": 6.5}
        size = {"width": 40, "height": 30} if message is None else {"width": None, "height": None}
        rows.append({"key": f"{shard:05d}{n:04d}", **known, "status": status, "error_message": message, **size})
    return rows


def write_shard(root: Path, shard: int, *, table: bool = True, tar: bool = True) -> Path:
    """Write a shard as a tar, with images in order of arrival, or as a folder of files."""
    rows = rows_of(shard)
    members: dict[str, bytes | dict] = {}
    for row in reversed(rows):
        if row["status"] == "success":
            members |= {f"{row['key']}.jpg": encoded_image(1), f"{row['key']}.txt": row["caption"].encode()}
            members[f"{row['key']}.json"] = row
    if table:
        root.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows[::-1]), root / f"{shard:05d}.parquet")
    if tar:
        return write_tar(root / f"{shard:05d}.tar", members)
    folder = root / f"{shard:05d}"
    folder.mkdir(parents=True)
    for name, data in members.items():
        (folder / name).write_bytes(json.dumps(data).encode() if isinstance(data, dict) else data)
    return folder


def stage(folder: Path) -> Stage:
    return Stage(folder / "1-sources", {}, processes=1, show=False)


@pytest.mark.parametrize("tar", [True, False])
def test_every_url_is_kept_or_dropped_with_a_reason(tmp_path: Path, tar: bool):
    for shard in (0, 1):
        write_shard(tmp_path / "images", shard, tar=tar)
    made = stage(tmp_path)
    counts = img2dataset(made, path=str(tmp_path / "images"))
    assert {k: n for k, n in counts.items() if n} == {"images": 8, "rows": 12, "dead_url": 2, "not_an_image": 2}
    rows = read_stage(made.folder).to_pylist()
    assert [row["id"] for row in rows] == [f"{s:05d}{n:04d}" for s in (0, 1) for n in (0, 1, 4, 5)]
    assert rows[0]["caption"] == "by Claude Monet 0"
    assert (rows[0]["width"], rows[0]["height"]) == (40, 30)
    assert read_image_bytes(rows[3]["image"]) == encoded_image(1)
    dropped = pq.read_table(made.folder / "dropped-00000.parquet").to_pylist()
    assert dropped[0] == {"id": "000000002", "reason": "dead_url: HTTP Error 404: Not Found"}


@pytest.mark.parametrize("tar", [True, False])
def test_without_the_table_the_members_are_read(tmp_path: Path, tar: bool):
    write_shard(tmp_path / "images", 0, table=False, tar=tar)
    made = stage(tmp_path)
    assert img2dataset(made, path=str(tmp_path / "images"))["images"] == 4
    rows = read_stage(made.folder).to_pylist()
    assert [row["id"] for row in rows] == [f"{n:09d}" for n in (0, 1, 4, 5)]
    assert rows[0]["caption"] == "by Claude Monet 0"
    assert rows[0]["aesthetic"] == pytest.approx(6.5)


def test_captions_come_from_text_files_and_broken_json_is_ignored(tmp_path: Path):
    members: dict[str, bytes | dict] = {
        "0.jpg": encoded_image(1),
        "0.txt": "Münch".encode("latin-1"),
        "0.json": b"{broken",
    }
    write_tar(tmp_path / "images/00000.tar", members | {"1.webp": encoded_image(2), "1.json": {"aesthetic": "high"}})
    made = stage(tmp_path)
    counts = img2dataset(made, path=str(tmp_path / "images"))
    assert (counts["images"], counts["captions_not_utf8"]) == (2, 1)
    assert read_stage(made.folder)["caption"].to_pylist() == ["Münch", None]


def test_a_truncated_tar_keeps_the_images_before_the_end(tmp_path: Path):
    tar = write_shard(tmp_path / "images", 0)
    with tar.open("r+b") as file:
        file.truncate(tar.stat().st_size // 2)
    made = stage(tmp_path)
    counts = img2dataset(made, path=str(tmp_path / "images"))
    assert counts["damaged_tars"] == 1
    assert 0 < counts["images"] < 4
    assert counts["images"] + counts["missing"] + counts["dead_url"] + counts["not_an_image"] == counts["rows"] == 6


def test_several_downloads_get_distinct_ids(tmp_path: Path):
    for name in ("a", "b"):
        write_shard(tmp_path / "images" / name, 0)
    made = stage(tmp_path)
    img2dataset(made, path=str(tmp_path / "images"))
    ids = read_stage(made.folder)["id"].to_pylist()
    assert ids[0] == "a/000000000"
    assert len(set(ids)) == 8


def test_a_missing_or_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(StylesimError, match="there is no folder at"):
        img2dataset(stage(tmp_path), path=str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StylesimError, match="contains no tar and no folder of images"):
        img2dataset(stage(tmp_path), path=str(tmp_path / "empty"))


def test_names_that_are_not_utf8_and_files_of_systems_in_tars(tmp_path: Path):
    (tmp_path / "images").mkdir()
    with tarfile.open(tmp_path / "images/00000.TAR", "w") as tar:
        for name in ("\udce9.jpg", "\udce8.jpg", "._a.jpg", "__MACOSX/._b.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(encoded_image(1))
            tar.addfile(info, io.BytesIO(encoded_image(1)))
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/images/\xe8/\xe7.jpg"))
    odd.parent.mkdir()
    odd.write_bytes(encoded_image(2))
    made = stage(tmp_path)
    img2dataset(made, path=str(tmp_path / "images"))
    rows = read_stage(made.folder).to_pylist()
    assert sorted(row["id"] for row in rows) == [r"\xe7", r"\xe8", r"\xe9"]
    assert sorted(len(read_image_bytes(row["image"])) for row in rows) == sorted(
        [len(encoded_image(1)), len(encoded_image(1)), len(encoded_image(2))]
    )
