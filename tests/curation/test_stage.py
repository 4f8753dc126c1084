"""A stage is a folder: the same however it came about, and never taken for another."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylesim.core.errors import StylesimError
from stylesim.curation.image_locator import read_image_bytes
from stylesim.curation.stage import SCHEMA, Part, Stage, part_paths, read_counts, read_stage, stage_digest


def count_up(number: int) -> Part:
    """Twenty rows, of which one is dropped."""
    ids = [f"{number:03d}{n:02d}" for n in range(20)]
    dropped = pa.table({"id": ids[:1], "reason": ["first"]})
    return Part(pa.table({"id": ids[1:]}), {"images": 19, "first": 1}, dropped)


def count_up_slowly(number: int) -> Part:
    time.sleep(0.2)
    return count_up(number)


def shout(table: pa.Table) -> Part:
    captions = [f"{id}!" for id in table["id"].to_pylist()]
    return Part(table.set_column(3, "caption", pa.array(captions)), {"images": len(captions)})


def made(folder: Path, processes: int = 1, pieces: int = 5, **settings: int) -> Stage:
    stage = Stage(folder, settings, processes=processes, show=False)
    if stage.begin() is None:
        stage.finish(stage.map_inputs(count_up, range(pieces)))
    return stage


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_parts_hold_every_column_and_counts_add_up(tmp_path: Path):
    first = made(tmp_path / "1-first")
    second = Stage(tmp_path / "2-second", {}, first.folder, processes=1, show=False)
    assert second.begin() is None
    counts = second.map_parts(shout)
    assert counts == Counter(images=95)
    second.finish(counts)
    rows = read_stage(second.folder)
    assert rows.schema == SCHEMA
    assert rows["caption"].to_pylist() == [f"{n:03d}{m:02d}!" for n in range(5) for m in range(1, 20)]
    assert rows["width"].null_count == 95
    assert read_counts(first.part_path(3)) == Counter(images=19, first=1)
    assert pq.read_table(first.folder / "dropped-00002.parquet").to_pylist() == [{"id": "00200", "reason": "first"}]
    assert second.begin() == {"images": 95}, "what is done is not done again"


def test_serial_parallel_and_twice_are_the_same_bytes(tmp_path: Path):
    once, again, parallel = (made(tmp_path / name, processes) for name, processes in (("a", 1), ("b", 1), ("c", 3)))
    assert files(once.folder) == files(again.folder) == files(parallel.folder)


def test_a_killed_process_loses_only_the_piece_it_was_at(tmp_path: Path):
    program = (
        "import sys; sys.path[:0] = [sys.argv[1]]; from pathlib import Path; import test_stage as t;"
        " s = t.Stage(Path(sys.argv[2]), {}, processes=1, show=False); s.begin();"
        " s.map_inputs(t.count_up_slowly, range(5))"
    )
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", program, str(Path(__file__).parent), str(folder)])
    while len(part_paths(folder)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = {path: path.stat().st_mtime_ns for path in part_paths(folder)}
    assert 2 <= len(left) < 5
    with pytest.raises(StylesimError, match="killed is not finished"):
        stage_digest(folder)
    made(folder)
    assert {path: path.stat().st_mtime_ns for path in left} == left
    assert files(folder) == files(made(tmp_path / "whole").folder)


def test_other_settings_and_other_input_are_refused_unless_redone(tmp_path: Path):
    first = made(tmp_path / "1-first", size=1)
    other = Stage(first.folder, {"size": 2}, processes=1, show=False)
    with pytest.raises(StylesimError, match=r"size differ\): add redo=true"):
        other.begin()
    after = Stage(tmp_path / "2-after", {}, first.folder, processes=1, show=False)
    assert after.begin() is None
    after.write_part(0, count_up(0))
    again = Stage(first.folder, {"size": 2}, processes=1, show=False, redo=True)
    assert again.begin() is None
    assert part_paths(first.folder) == []
    again.finish(again.map_inputs(count_up, range(2)))
    with pytest.raises(StylesimError, match="before differ"):
        after.begin()


def test_a_stage_that_came_to_nothing_may_be_begun_otherwise(tmp_path: Path):
    first = made(tmp_path, pieces=0).folder / "first"
    assert Stage(first, {"size": 1}, show=False).begin() is None
    assert Stage(first, {"size": 2}, show=False).begin() is None
    assert made(first, size=2).begin() == {"images": 95, "first": 5}


def test_a_strangers_folder_is_left_alone(tmp_path: Path):
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    for redo in (False, True):
        with pytest.raises(StylesimError, match="no stage has written"):
            Stage(tmp_path, {}, redo=redo).begin()
    assert (tmp_path / "holiday.jpg").read_bytes() == b"precious"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_images_are_read_from_files_and_tars(tmp_path: Path, mode: Literal["w", "w:gz"]):
    archive = tmp_path / "00000.tar"
    with tarfile.open(archive, mode) as tar:
        for n in range(3):
            member = tarfile.TarInfo(f"{n}.jpg")
            member.size = 1000
            tar.addfile(member, io.BytesIO(bytes([n]) * 1000))
    assert [read_image_bytes(f"{archive}::{n}.jpg")[0] for n in (2, 0, 1)] == [2, 0, 1]
    with pytest.raises(StylesimError, match=r"3.jpg cannot be read"):
        read_image_bytes(f"{archive}::3.jpg")
    with pytest.raises(StylesimError, match=r"nothing.jpg cannot be read"):
        read_image_bytes(str(tmp_path / "nothing.jpg"))


def test_a_truncated_tar_gives_what_comes_before(tmp_path: Path):
    archive = tmp_path / "00000.tar"
    with tarfile.open(archive, "w") as tar:
        for n in range(3):
            member = tarfile.TarInfo(f"{n}.jpg")
            member.size = 1024
            tar.addfile(member, io.BytesIO(bytes([n]) * 1024))
    with archive.open("r+b") as file:
        file.truncate(2 * 1536 + 512 + 100)
    assert read_image_bytes(f"{archive}::1.jpg") == b"\x01" * 1024
    with pytest.raises(StylesimError, match="ends inside it"):
        read_image_bytes(f"{archive}::2.jpg")
