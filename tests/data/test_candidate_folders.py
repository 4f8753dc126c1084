from __future__ import annotations

from pathlib import Path

import pytest
from conftest import draw

from stylesim.core.errors import ConfigError
from stylesim.data.candidate_folders import find_candidates


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / "runs" / name / "samples").mkdir(parents=True)
        (tmp_path / "runs" / name / "samples" / "0.png").write_bytes(draw("red", 0))
    (tmp_path / "runs" / "empty" / "samples").mkdir(parents=True)
    return tmp_path / "runs"


def test_a_glob_names_candidates_and_leaves_empty_ones_out(runs: Path) -> None:
    found, empty = find_candidates(str(runs / "*" / "samples"))
    assert list(found) == ["a", "b"]
    assert empty == [str(runs / "empty" / "samples")]


def test_lists_tables_and_names(runs: Path) -> None:
    places = [str(runs / name / "samples") for name in ("a", "b")]
    assert list(find_candidates(places)[0]) == ["a", "b"]
    (runs / "table.csv").write_text("path,name\na/samples,first\nb/samples,second\n")
    assert list(find_candidates(str(runs / "table.csv"))[0]) == ["first", "second"]
    assert list(find_candidates({"one": places[0]})[0]) == ["one"]
    assert list(find_candidates(places[0])[0]) == ["samples"]


def test_wrong_candidates_are_refused(runs: Path) -> None:
    with pytest.raises(ConfigError, match="matches no folder"):
        find_candidates(str(runs / "*" / "nothing"))
    with pytest.raises(ConfigError, match="at least one folder"):
        find_candidates(str(runs / "emp*" / "samples"))
    with pytest.raises(ConfigError, match="more than once"):
        find_candidates([str(runs / "a"), str(runs / "a")])
