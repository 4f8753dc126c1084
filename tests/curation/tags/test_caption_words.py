"""Words of captions and names, regardless of case, accents and punctuation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylesim.curation.tags.caption_words import BREAK, COMMA, phrase, published_form, words, words_of


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
def test_words_are_folded_and_split(text: str, expected: str):
    assert " ".join(words(text)) == expected


@pytest.mark.slow
@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_words_of_many_texts_are_the_words_of_each(texts: list[str]):
    for alike in (True, False):
        some = [text.replace(BREAK, "") for text in texts if text.isascii() is alike]
        if some:
            found = [word for word in words_of(some) if word != COMMA]
            assert found == f" {BREAK} ".join(" ".join(words(text)) for text in some).split()


@pytest.mark.parametrize("text", ["Oil, tempera", "oil; tempera", "OIL | tempera", "oïl, tempera", "oil\u3001tempera"])
def test_a_comma_is_a_word_of_its_own(text: str):
    assert words_of([text]) == ["oil", COMMA, "tempera"]


@given(st.text(st.characters(max_codepoint=0x24F), max_size=30))
def test_words_do_not_depend_on_case(text: str):
    assert words(text.upper().lower()) == words(text.lower())


def test_articles_are_removed_from_the_lines_of_a_list():
    assert phrase("an illustration of") == "illustration"


def test_the_published_form_has_no_punctuation_and_no_small_words():
    assert published_form("arts and crafts movement") == "arts crafts movement"
    assert published_form("Georgia O'Keeffe") == "georgia okeeffe"
    assert published_form("J.M.W. Turner") == "jmw turner"
