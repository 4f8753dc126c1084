"""The stage that tags images with the names in their captions."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from stylesim.core.errors import StylesimError
from stylesim.core.stages.stage_parts import Part, part_paths
from stylesim.curation.stage import Stage, read_stage
from stylesim.curation.tags.match_tags import match_tags

CAPTIONS = ["Claude Monet, oil painting", "a van on the road", "pop art by Mucha", None, "mural by Jo Doe", "art deco"]
ROWS = 60


def rows(number: int) -> Part:
    captions = [CAPTIONS[n % len(CAPTIONS)] for n in range(ROWS)]
    given = [["tag:own"] if n == 1 else None for n in range(ROWS)]
    table = {"id": [f"{number}/{n}" for n in range(ROWS)], "caption": captions}
    return Part(pa.table(table | {"tags": pa.array(given, pa.list_(pa.string()))}), {})


def sources(folder: Path, pieces: int = 4) -> Path:
    stage = Stage(folder / "1-sources", {}, processes=1, show=False)
    if stage.begin() is None:
        stage.finish(stage.map_inputs(rows, range(pieces)))
    return stage.folder


def stage(folder: Path, source: Path, processes: int = 1, **settings: str) -> Stage:
    return Stage(folder / "2-tags", settings, source, processes, show=False)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_tags_counts_and_previews(tmp_path: Path):
    made = stage(tmp_path, sources(tmp_path, 2))
    counts = match_tags(made)
    assert counts == {
        "images": 120,
        "untagged": 58,
        "without_caption": 20,
        "tagged_by_source": 2,
        "tags": 6,
        "artists": 2,
        "mediums": 1,
        "movements": 2,
    }
    table = read_stage(made.folder)
    assert table["tags"].to_pylist()[:6] == [
        ["artist:claude monet", "medium:oil painting"],
        ["tag:own"],
        ["movement:pop art", "artist:alphonse mucha"],
        [],
        [],
        ["movement:art deco"],
    ]
    assert table.drop_columns(["tags"]) == read_stage(made.source or tmp_path).drop_columns(["tags"])
    with (made.folder / "tags.csv").open() as file:
        assert next(csv.DictReader(file)) == {"tag": "artist:alphonse mucha", "images": "20"}
    assert (made.folder / "tags.png").stat().st_size > 1000
    assert "Claude Monet" in (made.folder / "samples.csv").read_text()


@pytest.mark.parametrize(("given", "second"), [("keep", ["tag:own"]), ("add", ["tag:own"]), ("replace", [])])
def test_tags_of_the_source_are_kept_extended_or_replaced(tmp_path: Path, given: str, second: list[str]):
    made = stage(tmp_path, sources(tmp_path, 1))
    match_tags(made, given=given)  # type: ignore[arg-type]
    tags = read_stage(made.folder)["tags"].to_pylist()
    assert tags[1] == second
    assert tags[7] == []


def test_users_own_lists_are_used(tmp_path: Path):
    names, more, stop = (tmp_path / name for name in ("artists.txt", "aliases.txt", "stop.txt"))
    names.write_text("Jo Doe\nAlphonse Mucha\n")
    more.write_text("Jo Doe: the road\n")
    stop.write_text("Mucha\npop art\n")
    source = sources(tmp_path, 1)
    made = stage(tmp_path, source)
    match_tags(made, artists=str(names), aliases=str(more), stop=str(stop))
    tags = read_stage(made.folder)["tags"].to_pylist()
    assert tags[:6] == [["medium:oil painting"], ["tag:own"], [], [], ["artist:jo doe"], ["movement:art deco"]]
    assert tags[7] == ["artist:jo doe"]
    more.write_text("Jo Doe: a van\n")
    with pytest.raises(StylesimError, match=r"lists differ\)"):
        match_tags(stage(tmp_path, source), artists=str(names), aliases=str(more), stop=str(stop))


def test_reference_matching_gives_other_tags(tmp_path: Path):
    made = stage(tmp_path, sources(tmp_path, 1))
    match_tags(made, matching="reference")
    first = read_stage(made.folder)["tags"].to_pylist()[0]
    assert set(first) == {"artist:claude monet", "medium:oil painting", "medium:painting"}


PROGRAM = """
import sys, time
sys.path[:0] = [sys.argv[1]]
from pathlib import Path
import stylesim.curation.tags.match_tags as tags, test_match_tags as t
def slow(table, settings, given, work=tags._match_part):
    time.sleep(0.2)
    return work(table, settings, given)
tags._match_part = slow
tags.match_tags(t.stage(Path(sys.argv[2]), Path(sys.argv[3])))
"""


@pytest.mark.slow
def test_bytes_do_not_depend_on_processes_or_interruptions(tmp_path: Path):
    source = sources(tmp_path)
    killed, plain, parallel = (stage(tmp_path / n, source, p) for n, p in (("a", 1), ("b", 1), ("c", 2)))
    arguments = [str(Path(__file__).parent), str(tmp_path / "a"), str(source)]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments])
    while not part_paths(killed.folder):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 1 <= len(part_paths(killed.folder)) < 4
    assert not (killed.folder / "summary.json").exists()
    counts = match_tags(killed)
    assert counts == match_tags(plain) == match_tags(parallel)
    assert files(killed.folder) == files(plain.folder) == files(parallel.folder)
    assert json.loads((plain.folder / "summary.json").read_text())["counts"]["images"] == 4 * ROWS
