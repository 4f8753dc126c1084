"""Read tags from a column in any of these forms: lists, JSON or Python lists as text, or separated names."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from stylesim.core.errors import DataError
from stylesim.curation.sources.standard_columns import describe_rows
from stylesim.curation.tags.caption_words import published_form

SEPARATORS = {"|": "|", ";": ";", "\t": "tab", "\n": "line break", ",": "comma"}
_UNSEPARATED = re.compile(r"""['"]\s+['"]""")  # ['a' 'b'], as NumPy prints it, is ['ab'] to Python


Row = str | list[str] | None


class TagFormat(NamedTuple):
    """How the tags of a column are written."""

    separator: str
    """The separator in rows that are not lists."""
    counts: dict[str, int]
    """The number of rows of each form."""

    def __str__(self) -> str:
        return ", ".join(f"{count:,} rows of {form}" for form, count in self.counts.items()) or "no tags"


def detect_tag_format(rows: Iterable[Row], known: Mapping[str, str], column: str) -> TagFormat:
    """Determine how the tags of a whole column are written.

    Some rows may be lists and others text. For text, the separator that gives the most `known` names is chosen.

    Args:
        rows: The values of the column.
        known: The tags by the `published_form` of their names.
        column: The name of the column for the error message.

    Returns:
        The separator, and the number of rows of each form.

    Raises:
        DataError: If rows are neither lists nor text (the message quotes the first of them), or if no separator gives
            a known name.
    """
    counts: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    damaged: list[tuple[int, str]] = []
    texts: list[tuple[int, str]] = []
    for number, row in enumerate(rows):
        form, tags = _read_list(row)
        if form == "text":
            texts += [(number, str(row))] * (len(texts) < 3)
            hits.update(sign for sign in SEPARATORS for name in tags[0].split(sign) if published_form(name) in known)
        elif form == "damaged":
            damaged.append((number, str(row)))
        counts[form] += 1
    if damaged or (texts and not hits):
        raise DataError(
            f"{column}: {len(damaged) or counts['text']:,} rows hold no tags that can be read. Expected a JSON list, a"
            f" Python list, or known names with one of these separators: {', '.join(SEPARATORS.values())}."
            f" First {describe_rows(iter(damaged or texts))}"
        )
    separator = max(SEPARATORS, key=lambda sign: hits[sign]) if hits else ","
    named = {f"text separated by {SEPARATORS[separator]}" if form == "text" else form: n for form, n in counts.items()}
    return TagFormat(separator, dict(sorted(named.items())))


def read_tags(row: Row, separator: str) -> list[str]:
    """Return the tags of one row, given the separator of its column."""
    form, tags = _read_list(row)
    names = tags[0].split(separator) if form == "text" else tags
    return [stripped for name in names if (stripped := name.strip())]


def _read_list(row: Row) -> tuple[str, list[str]]:
    """Return the form of a row and its tags; a text is returned undivided."""
    if isinstance(row, list):  # the column holds lists, and no text
        names = [name for name in row if isinstance(name, str)]
        return ("damaged", []) if len(names) < len(row) else ("lists" if row else "nothing", names)
    if not isinstance(row, str | None):
        return "damaged", []
    if not (text := (row or "").strip()):
        return "nothing", []
    if text[0] not in "[({":
        return "text", [text]
    for form, parse in (("JSON lists", json.loads), ("Python lists", ast.literal_eval)):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
            unseparated = form == "Python lists" and _UNSEPARATED.search(text)
            return ("damaged", []) if unseparated else (form, list(value))
    return "damaged", []
