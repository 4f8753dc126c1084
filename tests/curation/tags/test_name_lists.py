"""Lists of names: the published ones and a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylesim.core.errors import ConfigError
from stylesim.curation.tags.name_lists import make_tag, read_list, read_name_lists


def test_tags_have_their_kind_and_no_article():
    assert make_tag("medium", "an oil painting") == "medium:oil painting"
    assert make_tag("artist", "M. C. Escher") == "artist:m. c. escher"


def test_the_published_lists_are_complete():
    """They have 5,265, 95 and 200 lines (reference/csd.md, section 3)."""
    assert {kind: len(names) for kind, names in read_name_lists({}).items()} == {
        "artist": 5265,
        "medium": 95,
        "movement": 200,
    }


def test_a_users_own_list_is_read_without_comments_and_empty_lines(tmp_path: Path):
    own = tmp_path / "own.txt"
    own.write_text("# mine\nHilma af Klint\n\n  Jean Tinguely \n")
    assert read_name_lists({"artist": str(own)})["artist"] == ["Hilma af Klint", "Jean Tinguely"]


def test_an_empty_or_missing_list_is_refused(tmp_path: Path):
    own = tmp_path / "own.txt"
    own.write_text("# nobody\n")
    with pytest.raises(ConfigError, match=r"own.txt contains no name"):
        read_list(own)
    with pytest.raises(ConfigError, match=r"none.txt cannot be read as a list of names"):
        read_list(tmp_path / "none.txt")
