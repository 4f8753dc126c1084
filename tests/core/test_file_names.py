"""Names of files as text, and back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stylesim.core.file_names import find_file, path_parts, printable
from stylesim.core.files import write_text


@pytest.mark.parametrize("text", ["a.jpg", "Cézanne/x.jpg", "a\\b", "絵.png"])
def test_ordinary_names_are_returned_as_they_are(text: str) -> None:
    assert printable(text) == text


def test_other_bytes_are_escaped_each_in_its_own_way() -> None:
    names = [os.fsdecode(name) for name in (b"\xe9.jpg", b"\xe8.jpg", b"\xff\xfe")]
    assert [printable(name) for name in names] == [r"\xe9.jpg", r"\xe8.jpg", r"\xff\xfe"]
    assert printable("\ud800") == r"\ud800"


def test_the_file_of_a_printable_name_is_found(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9\xe8.jpg"))
    odd.write_bytes(b"")
    assert find_file(tmp_path, printable(odd.name)) == odd
    assert find_file(tmp_path, printable(odd)) == odd
    assert find_file(tmp_path, r"gone\xe9.jpg") == tmp_path / r"gone\xe9.jpg"


def test_a_file_of_this_very_name_comes_first(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.jpg").write_bytes(b"")
    assert find_file(tmp_path, r"a\b.jpg") == tmp_path / "a/b.jpg"
    (tmp_path / r"a\b.jpg").write_bytes(b"")
    assert find_file(tmp_path, r"a\b.jpg") == tmp_path / r"a\b.jpg"


def test_the_parts_of_a_path() -> None:
    assert path_parts("a/b\\c.jpg") == ("a", "b", "c.jpg")


def test_any_text_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / "t.txt", "\udce9 é")
    assert (tmp_path / "t.txt").read_text(encoding="utf-8") == r"\udce9 é"
