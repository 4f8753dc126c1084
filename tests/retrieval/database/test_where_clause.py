from __future__ import annotations

import pytest

from stylesim.core.errors import ConfigError
from stylesim.retrieval.database.columns import Kind
from stylesim.retrieval.database.where_clause import (
    MAX_DEPTH,
    Comparison,
    HasTag,
    Junction,
    Membership,
    Missing,
    Negation,
    parse_where,
)

COLUMNS: dict[str, Kind] = {
    "id": "text",
    "period": "text",
    "year": "integer",
    "height": "number",
    "public": "boolean",
    "tags": "tags",
    "thumbnail": "bytes",
}


@pytest.mark.parametrize(
    ("where", "condition"),
    [
        ("period = '1890s'", Comparison("period", "=", "1890s")),
        ("PERIOD <> 'it''s'", Comparison("period", "<>", "it's")),
        ("period != ''", Comparison("period", "<>", "")),
        ("year>=-5", Comparison("year", ">=", -5)),
        ("year < 1.5e3", Comparison("year", "<", 1500.0)),
        ("height = 2", Comparison("height", "=", 2.0)),
        ("public = TRUE", Comparison("public", "=", True)),
        ("period in ('a','b')", Membership("period", ("a", "b"))),
        ("year not in (1)", Negation(Membership("year", (1,)))),
        ("id like 'a\\%%'", Comparison("id", "like", "a\\%%")),
        ("id not like 'a'", Negation(Comparison("id", "like", "a"))),
        ("period is null", Missing("period")),
        ("thumbnail is not null", Negation(Missing("thumbnail"))),
        ("tags contains 'artist:monet'", HasTag("tags", "artist:monet")),
        ("year between 1 and 2", Junction("and", (Comparison("year", ">=", 1), Comparison("year", "<=", 2)))),
        (
            "year = 1 or year = 2 and not (year = 3)",
            Junction(
                "or",
                (
                    Comparison("year", "=", 1),
                    Junction("and", (Comparison("year", "=", 2), Negation(Comparison("year", "=", 3)))),
                ),
            ),
        ),
    ],
)
def test_a_filter_is_parsed(where: str, condition: object):
    assert parse_where(where, COLUMNS) == condition


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "expected the name of a column, got the end at character 1"),
        ("artist = 'x'", r"no such column \(the columns are id, period, .*\), got 'artist' at character 1"),
        ("period = 1890", "period is compared with text in single quotes, got '1890' at character 10"),
        ('period = "1890s"', "unexpected character, got '\"' at character 10"),
        ("period = '1890s", 'unexpected character, got "\'"'),
        ("year = '1890'", "year is compared with a number"),
        ("year = 1890 1891", "expected and, or, or the end, got '1891'"),
        ("year = year", "year is compared with a number, got 'year'"),
        ("year like '18%'", "year holds integer, so it must be followed by is null, <, <=, "),
        ("year not = 3", "year holds integer"),
        ("tags = 'a'", "tags holds tags, so it must be followed by is null, contains, got '='"),
        ("thumbnail = 'a'", "thumbnail holds bytes"),
        ("public = 1", "public is compared with true or false"),
        ("(year = 1", r"expected \), got the end"),
        ("year in ()", "year is compared with a number"),
        ("year = 1e999", "too large"),
        ("year = 1x", "unexpected character"),
        ("year = 99999999999999999999 and", "expected the name of a column"),
        ("period like 'a\\'", "cannot end in a single"),
        ("period = 'a\0'", "NUL"),
        ("not " * 60 + "year = 1", f"more than {MAX_DEPTH} levels"),
        ("(" * 60 + "year = 1" + ")" * 60, f"more than {MAX_DEPTH} levels"),
        ("period = '" + "a" * 100_000 + "'", "100,000 characters"),
        # What an attacker would try.
        ("1 = 1", "expected the name of a column"),
        ("period = 'a'; drop table items", "unexpected character, got ';'"),
        ("period = 'a' -- comment", "unexpected character, got '-'"),
        ("period = 'a' /* comment */", "unexpected character, got '/'"),
        ("period = 'a' union select 1", "expected and, or, or the end, got 'union'"),
        ("pg_sleep(10) = 1", "no such column"),
        ("id in (select id from items)", "compared with text"),
        ("period = 'a' || 'b'", "unexpected character"),
        ("period = E'a'", "compared with text in single quotes, got 'E'"),
        ("period = $$a$$", "unexpected character"),
        ("period = `a`", "unexpected character"),
        ("pеriod = 'a'", "unexpected character"),  # a Cyrillic letter
        ("descriptor is null", "no such column"),
    ],
)
def test_anything_else_is_refused_with_its_place(where: str, message: str):
    with pytest.raises(ConfigError, match=message):
        parse_where(where, COLUMNS)


def test_many_conditions_in_a_row_are_no_nesting():
    where = " or ".join(f"year = {year}" for year in range(3000))
    condition = parse_where(where, COLUMNS)
    assert isinstance(condition, Junction)
    assert len(condition.conditions) == 3000
