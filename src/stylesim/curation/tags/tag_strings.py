"""The tags of a table's column, however they are written: lists, text of JSON or Python lists, or separated words."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from stylesim.core.errors import StylesimError
from stylesim.curation.sources.columns import offenders
from stylesim.curation.tags.names import bare

SEPARATORS = {"|": "|", ";": ";", "\t": "tab", "\n": "line break", ",": "comma"}
_UNSEPARATED = re.compile(r"""['"]\s+['"]""")  # ['a' 'b'], as NumPy prints it, is ['ab'] to Python


Row = str | list[str] | None


class Writing(NamedTuple):
    """How the tags of a column are written."""

    separator: str
    """Of the rows that are no lists."""
    counts: dict[str, int]
    """Rows by what was found in them."""

    def __str__(self) -> str:
        return ", ".join(f"{count:,} rows of {kind}" for kind, count in self.counts.items()) or "no tags"


def recognise(rows: Iterable[Row], known: Mapping[str, str], what: str) -> Writing:
    """Look through a whole column.

    Text is separated by whichever sign gives most names that are `known` (by their `bare` form); rows may differ in
    whether they are lists.

    Raises:
        StylesimError: If rows are neither, with the first of them; or text has no known name however it is separated.
    """
    counts: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    wrong: list[tuple[int, str]] = []
    texts: list[tuple[int, str]] = []
    for number, row in enumerate(rows):
        kind, tags = _read_list(row)
        if kind == "text":
            texts += [(number, str(row))] * (len(texts) < 3)
            hits.update(sign for sign in SEPARATORS for name in tags[0].split(sign) if bare(name) in known)
        elif kind == "damaged":
            wrong.append((number, str(row)))
        counts[kind] += 1
    if wrong or (texts and not hits):
        raise StylesimError(
            f"{what}: {len(wrong) or counts['text']:,} rows hold no tags that could be read: neither a JSON list, nor a"
            f" Python list, nor names of the lists separated by {', '.join(SEPARATORS.values())}."
            f" First {offenders(iter(wrong or texts))}"
        )
    separator = max(SEPARATORS, key=lambda sign: hits[sign]) if hits else ","
    named = {f"text separated by {SEPARATORS[separator]}" if kind == "text" else kind: n for kind, n in counts.items()}
    return Writing(separator, dict(sorted(named.items())))


def read_tags(row: Row, separator: str) -> list[str]:
    """The tags of one row of a column that has been recognised."""
    kind, tags = _read_list(row)
    found = tags[0].split(separator) if kind == "text" else tags
    return [stripped for name in found if (stripped := name.strip())]


def _read_list(row: Row) -> tuple[str, list[str]]:
    """What a row is, and its tags; those of a text stay together."""
    if isinstance(row, list):  # the column holds lists, and no text
        names = [name for name in row if isinstance(name, str)]
        return ("damaged", []) if len(names) < len(row) else ("lists" if row else "nothing", names)
    if not isinstance(row, str | None):
        return "damaged", []
    if not (text := (row or "").strip()):
        return "nothing", []
    if text[0] not in "[({":
        return "text", [text]
    for kind, read in (("JSON lists", json.loads), ("Python lists", ast.literal_eval)):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list | tuple) and all(isinstance(name, str) for name in found):
            return ("damaged", []) if kind[0] == "P" and _UNSEPARATED.search(text) else (kind, list(found))
    return "damaged", []
