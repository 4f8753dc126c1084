"""A stage folder does not depend on how it was made, and is never mistaken for the result of other settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from stage_files import read_dropped, read_files

from stylesim.core.errors import ConfigError
from stylesim.core.stages.stage import stage_digest
from stylesim.core.stages.stage_parts import Part, part_paths, read_counts
from stylesim.curation.stage import SCHEMA, Stage, read_stage


def count_up(number: int) -> Part:
    """Return twenty rows, of which one is dropped."""
    ids = [f"{number:03d}{n:02d}" for n in range(20)]
    dropped = pa.table({"id": ids[:1], "reason": ["first"]})
    return Part(pa.table({"id": ids[1:]}), {"images": 19, "first": 1}, dropped)


def count_up_slowly(number: int) -> Part:
    time.sleep(0.2)
    return count_up(number)


def exclaim(table: pa.Table) -> Part:
    captions = [f"{id}!" for id in table["id"].to_pylist()]
    return Part(table.set_column(3, "caption", pa.array(captions)), {"images": len(captions)})


def make(folder: Path, processes: int = 1, parts: int = 5, **settings: int) -> Stage:
    stage = Stage(folder, settings, processes=processes, show=False)
    if stage.begin() is None:
        stage.finish(stage.map_inputs(count_up, range(parts)))
    return stage


def test_parts_have_every_column_and_counts_add_up(tmp_path: Path):
    first = make(tmp_path / "1-first")
    second = Stage(tmp_path / "2-second", {}, first.folder, processes=1, show=False)
    assert second.begin() is None
    counts = second.map_parts(exclaim)
    assert counts == Counter(images=95)
    second.finish(counts)
    rows = read_stage(second.folder)
    assert rows.schema == SCHEMA
    assert rows["caption"].to_pylist() == [f"{n:03d}{m:02d}!" for n in range(5) for m in range(1, 20)]
    assert rows["width"].null_count == 95
    assert read_counts(first.part_path(3)) == Counter(images=19, first=1)
    assert read_dropped(first.folder) == {f"{n:03d}00": "first" for n in range(5)}
    assert second.begin() == {"images": 95}, "a finished stage is not made again"


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path):
    once, again, parallel = (make(tmp_path / name, processes) for name, processes in (("a", 1), ("b", 1), ("c", 3)))
    assert read_files(once.folder) == read_files(again.folder) == read_files(parallel.folder)


@pytest.mark.slow
def test_a_killed_process_loses_only_its_current_part(tmp_path: Path):
    program = (
        "import sys; sys.path[:0] = sys.argv[1:3]; from pathlib import Path; import test_stage as t;"
        " s = t.Stage(Path(sys.argv[3]), {}, processes=1, show=False); s.begin();"
        " s.map_inputs(t.count_up_slowly, range(5))"
    )
    here, folder = Path(__file__).parent, tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", program, str(here), str(here.parent), str(folder)])
    while len(part_paths(folder)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = {path: path.stat().st_mtime_ns for path in part_paths(folder)}
    assert 2 <= len(left) < 5
    with pytest.raises(ConfigError, match="killed is not finished"):
        stage_digest(folder)
    make(folder)
    assert {path: path.stat().st_mtime_ns for path in left} == left
    assert read_files(folder) == read_files(make(tmp_path / "whole").folder)


def test_other_settings_and_another_input_are_refused_unless_redo_is_set(tmp_path: Path):
    first = make(tmp_path / "1-first", size=1)
    other = Stage(first.folder, {"size": 2}, processes=1, show=False)
    with pytest.raises(ConfigError, match=r"size differ\): add redo=true"):
        other.begin()
    after = Stage(tmp_path / "2-after", {}, first.folder, processes=1, show=False)
    assert after.begin() is None
    after.write_part(0, count_up(0))
    again = Stage(first.folder, {"size": 2}, processes=1, show=False, redo=True)
    assert again.begin() is None
    assert part_paths(first.folder) == []
    again.finish(again.map_inputs(count_up, range(2)))
    with pytest.raises(ConfigError, match="before differ"):
        after.begin()


def test_a_folder_of_an_earlier_version_continues(tmp_path: Path):
    """Its plan names modules that have moved since, and lacks a setting that is null by default."""
    encoder = {"_target_": "stylesim.encoders.sscd.sscd_rn50", "image_size": 288}
    plan = {"settings": {"_target_": "stylesim.curation.duplicates.deduplicate", "encoder": encoder}, "inputs": {}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    make(tmp_path / "other", parts=2)
    for path in part_paths(tmp_path / "other"):
        path.rename(tmp_path / path.name)
    encoder = {"_target_": "stylesim.encoders.baselines.sscd.sscd_rn50", "image_size": 288}
    moved = "stylesim.curation.deduplicate.near_duplicates.deduplicate"
    settings = {"_target_": moved, "encoder": encoder, "whiten": None}
    assert Stage(tmp_path, settings, processes=1, show=False).begin() is None
    assert len(part_paths(tmp_path)) == 2
    for change in ({"_target_": "stylesim.curation.filter.filter_images"}, {"encoder": encoder | {"image_size": 224}}):
        with pytest.raises(ConfigError, match=r"differ\): add redo=true"):
            Stage(tmp_path, settings | change, processes=1, show=False).begin()


def test_a_plan_without_any_part_may_be_replaced(tmp_path: Path):
    first = make(tmp_path, parts=0).folder / "first"
    assert Stage(first, {"size": 1}, show=False).begin() is None
    assert Stage(first, {"size": 2}, show=False).begin() is None
    assert make(first, size=2).begin() == {"images": 95, "first": 5}


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path):
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    for redo in (False, True):
        with pytest.raises(ConfigError, match="no stage has written"):
            Stage(tmp_path, {}, redo=redo).begin()
    assert (tmp_path / "holiday.jpg").read_bytes() == b"precious"
