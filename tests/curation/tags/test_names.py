"""Words and names, whatever their case, accents and punctuation."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylesim.core.errors import StylesimError
from stylesim.curation.tags.names import BREAK, COMMA, bare, phrase, read_list, read_lists, tag, words, words_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Van Gogh's Sunflowers", "van gogh s sunflowers"),
        ("Van Gogh’s Sunflowers", "van gogh s sunflowers"),
        ("Théodore Géricault", "theodore gericault"),
        ("The\u0301odore", "theodore"),
        ("Stanisław Masłowski", "stanislaw maslowski"),
        ("Hammershøi, Ægir, Großer", "hammershoi aegir grosser"),
        ("Ｃｌａｕｄｅ　Ｍｏｎｅｔ", "claude monet"),
        ("o\ufb03ce", "office"),
        ("Francisco_Goya_-_El_Tres.jpg", "francisco goya el tres jpg"),
        ("art & language", "art and language"),
        ("J.M.W. Turner", "j m w turner"),
        ("İstanbul", "istanbul"),
        ("葛飾北斎 Hokusai", "葛飾北斎 hokusai"),
        ("", ""),
    ],
)
def test_words(text: str, expected: str):
    assert " ".join(words(text)) == expected


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_many_texts_have_the_words_of_each(texts: list[str]):
    for alike in (True, False):
        some = [text.replace(BREAK, "") for text in texts if text.isascii() is alike]
        if some:
            found = [word for word in words_of(some) if word != COMMA]
            assert found == f" {BREAK} ".join(" ".join(words(text)) for text in some).split()


@pytest.mark.parametrize("text", ["Oil, tempera", "oil; tempera", "OIL | tempera", "oïl, tempera", "oil\u3001tempera"])
def test_what_divides_is_a_word(text: str):
    assert words_of([text]) == ["oil", COMMA, "tempera"]


@given(st.text(st.characters(max_codepoint=0x24F), max_size=30))
def test_words_are_the_same_in_any_case(text: str):
    assert words(text.upper().lower()) == words(text.lower())


def test_names_of_lists():
    assert phrase("an illustration of") == "illustration"
    assert tag("medium", "an oil painting") == "medium:oil painting"
    assert tag("artist", "M. C. Escher") == "artist:m. c. escher"
    assert bare("arts and crafts movement") == "arts crafts movement"
    assert bare("Georgia O'Keeffe") == "georgia okeeffe"
    assert bare("J.M.W. Turner") == "jmw turner"


def test_the_published_lists_are_all_there():
    """5,265, 95 and 200 lines (reference/csd.md, section 3)."""
    assert {kind: len(names) for kind, names in read_lists({}).items()} == {
        "artist": 5265,
        "medium": 95,
        "movement": 200,
    }


def test_a_list_of_ones_own(tmp_path: Path):
    own = tmp_path / "own.txt"
    own.write_text("# mine\nHilma af Klint\n\n  Jean Tinguely \n")
    assert read_lists({"artist": str(own)})["artist"] == ["Hilma af Klint", "Jean Tinguely"]
    own.write_text("# nobody\n")
    with pytest.raises(StylesimError, match=r"own.txt holds no name"):
        read_list(own)
    with pytest.raises(StylesimError, match=r"none.txt cannot be read as a list of names"):
        read_list(tmp_path / "none.txt")
