"""Rename and convert the columns of other people's tables to the columns of a stage."""

# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stylesim.curation.stage import SCHEMA
from stylesim.data.labels import clean_labels

# For each column of a stage, the names it may have elsewhere, in any case. The first one present is used.
_OTHER_NAMES = {
    "id": ("id", "key"),
    "url": ("url",),
    "caption": ("caption", "text", "txt"),
    "width": ("width",),
    "height": ("height",),
    "aesthetic": ("aesthetic", "aesthetic_score"),
    "nsfw": ("nsfw", "punsafe"),
    "md5": ("md5",),
    "content": ("content",),
    "tags": ("tags",),
}


def standard_columns(table: pa.Table) -> pa.Table:
    """Return the columns of SCHEMA that the table has under one of their names.

    `nsfw` is text: a probability (`punsafe`) is written with four decimals. A value that cannot be converted to the
    type of its column becomes null.
    """
    by_name = {name.strip().casefold(): name for name in reversed(table.column_names)}
    columns = {}
    for name, other_names in _OTHER_NAMES.items():
        source = next((by_name[other] for other in other_names if other in by_name), None)
        kind = SCHEMA.field(name).type
        # Tags as text are left to the sources, which know how they are written.
        if source is not None and (not pa.types.is_list(kind) or pa.types.is_list(table[source].type)):
            columns[name] = _convert_column(table[source], kind)
    if "tags" in columns:
        columns["tags"] = _clean_tags(columns["tags"])
    return pa.table(columns) if columns else table.select([])


def _convert_column(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        if not (pa.types.is_string(kind) and pa.types.is_floating(column.type)):
            return column.cast(kind)
    except pa.ArrowException:  # such as 512.5 px, or a number written as "unknown"
        pass
    return pa.chunked_array([[_convert(value, kind) for value in column.to_pylist()]], kind)


def _convert(value: Any, kind: pa.DataType) -> str | float | None:
    """Return one converted value, or None if it cannot be converted."""
    try:
        if pa.types.is_string(kind):
            return None if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        number = float(value)
        return pa.scalar(int(number) if pa.types.is_integer(kind) else number, kind).as_py()
    except (TypeError, ValueError, OverflowError, pa.ArrowException):
        return None


def _clean_tags(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return lists of tags in which all spellings of a label are the same."""
    tags = pc.list_flatten(column)
    if pc.all(pc.equal(pc.utf8_trim_whitespace(pc.utf8_normalize(tags, "NFC")), tags)).as_py() is not False:
        return column  # nearly always, and fast
    rows = [None if row is None else clean_labels(tag for tag in row if tag is not None) for row in column.to_pylist()]
    return pa.chunked_array([rows], column.type)


def with_ids(table: pa.Table, stem: str, first: int) -> pa.Table:
    """Return the table with ids; if it has none, they are made of `stem` and row numbers that start with `first`."""
    if "id" in table.column_names:
        return table
    return table.append_column("id", [[f"{stem}/{first + row:09d}" for row in range(len(table))]])


def drop_missing(table: pa.Table, column: str) -> tuple[pa.Table, int]:
    """Return the rows that have a value in `column`, and the number of rows that have none."""
    if column not in table.column_names:
        return table.slice(0, 0), len(table)
    present = table.filter(pc.fill_null(pc.not_equal(table[column], ""), False))
    return present, len(table) - len(present)


def describe_rows(rows: Iterator[tuple[int, str]], most: int = 3) -> str:
    """Return the first rows, given as (number, text), as they are quoted in an error message."""
    return "; ".join(f"row {number}: {text[:120]!r}" for number, text in islice(rows, most))
