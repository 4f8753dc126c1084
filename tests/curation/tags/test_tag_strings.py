"""Tags are read from a column in whatever format it has."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylesim.core.errors import StylesimError
from stylesim.curation.tags.tag_strings import SEPARATORS, detect_tag_format, read_tags

KNOWN = {"pop art": "movement:pop art", "claude monet": "artist:claude monet", "oil painting": "medium:oil painting"}
ROWS = [["claude monet"], ["pop art", "oil painting"], ["claude monet", "o'keeffe"], []]


@pytest.mark.parametrize(
    ("write", "counts"),
    [
        (json.dumps, {"JSON lists": 4}),
        (repr, {"JSON lists": 1, "Python lists": 3}),
        (list, {"lists": 3, "nothing": 1}),
        ("|".join, {"nothing": 1, "text separated by |": 3}),
        (", ".join, {"nothing": 1, "text separated by comma": 3}),
        ("\t".join, {"nothing": 1, "text separated by tab": 3}),
    ],
)
def test_every_format_is_detected(write, counts: dict[str, int]):
    rows = [write(tags) for tags in ROWS]
    tag_format = detect_tag_format(rows, KNOWN, "here")
    assert tag_format.counts == counts
    assert [read_tags(row, tag_format.separator) for row in rows] == ROWS


def test_the_detected_format_is_described():
    tag_format = detect_tag_format(['["pop art"]', "['pop art']", "pop art; claude monet", None, ""], KNOWN, "here")
    assert (
        str(tag_format)
        == "1 rows of JSON lists, 1 rows of Python lists, 2 rows of nothing, 1 rows of text separated by ;"
    )


@pytest.mark.parametrize(
    "bad", ["['a' 'b']", "[1, 2]", '{"a": 1}', "['pop art'", "[['pop art']]", "[None]", [1], {"a": ["b"]}, 5]
)
def test_unreadable_rows_are_quoted_in_the_error(bad: Any):
    with pytest.raises(StylesimError, match=r"here: 2 rows hold no tags.*First row 1: .*row 3: "):
        detect_tag_format(["['pop art']", bad, "['claude monet']", bad], KNOWN, "here")


def test_text_without_any_known_name_is_refused():
    with pytest.raises(StylesimError, match=r"2 rows hold no tags that can be read.*First row 0: 'lorem ipsum'"):
        detect_tag_format(["lorem ipsum", "dolor, sit"], KNOWN, "here")


@given(st.lists(st.lists(st.text(st.characters(exclude_characters="".join(SEPARATORS) + "\0")).map(str.strip))))
def test_written_lists_are_read_back(rows: list[list[str]]):
    for write in (json.dumps, repr):
        texts = [write(tags) for tags in rows]
        try:
            separator = detect_tag_format(texts, KNOWN, "here").separator
        except StylesimError:
            assert any("'" in tag or '"' in tag for tags in rows for tag in tags), (
                "only quotes inside a tag may be misread"
            )
            continue
        assert [read_tags(text, separator) for text in texts] == [[t for t in tags if t] for tags in rows]
