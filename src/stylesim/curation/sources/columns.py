"""Other people's tables, read piece by piece, and their columns under our names."""

# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stylesim.core.errors import StylesimError
from stylesim.curation.stage import SCHEMA, SUMMARY, parts

# Our column: theirs, whatever their case, the first that is there.
_THEIRS = {
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


class Slice(NamedTuple):
    """Some rows of one row group."""

    path: Path
    group: int
    number: int
    """Which slice of the group, in slices of `rows` rows."""
    rows: int


def parquet_files(path: str | Path) -> list[Path]:
    """A parquet file, those of a folder at any depth, or the parts of a stage (`<out>/3-filter`).

    Raises StylesimError if there is none, or one cannot be read.
    """
    found = Path(path).expanduser().absolute()
    files = parts(found) if (found / SUMMARY).is_file() else sorted(found.rglob("*.parquet"))
    files = [found] if found.is_file() else files
    if not files:
        raise StylesimError(f"source.path={path}: there is no parquet file at {found}.")
    for file in files:
        try:
            pq.read_metadata(file)
        except (pa.ArrowException, OSError) as error:
            raise StylesimError(f"{file} cannot be read as parquet ({error}): fetch it again.") from error
    return files


def slices(files: Sequence[Path], rows: int) -> list[Slice]:
    """All rows of the files, at most `rows` at once."""
    return [
        Slice(file, group, number, rows)
        for file in files
        for metadata in [pq.read_metadata(file)]
        for group in range(metadata.num_row_groups)
        for number in range(-(-metadata.row_group(group).num_rows // rows))
    ]


def read_slice(piece: Slice, columns: Sequence[str] | None = None) -> tuple[pa.Table, int]:
    """The rows, and the number that the first of them has in its file; the rest of the group is not kept in memory."""
    with pq.ParquetFile(piece.path) as file:
        batches = file.iter_batches(piece.rows, [piece.group], columns, use_threads=False)
        batch = next(islice(batches, piece.number, None))
        first = sum(file.metadata.row_group(group).num_rows for group in range(piece.group))
    return pa.Table.from_batches([batch]), first + piece.number * piece.rows


def ours(table: pa.Table) -> pa.Table:
    """The columns of SCHEMA that the table has under whatever name.

    `nsfw` is text: a probability (`punsafe`) is written with four decimals. A value that is not what the name of its
    column says is null.
    """
    by_name = {name.lower(): name for name in reversed(table.column_names)}
    columns = {}
    for name, theirs in _THEIRS.items():
        found = next((by_name[their] for their in theirs if their in by_name), None)
        kind = SCHEMA.field(name).type
        # Tags that are text are the business of whoever knows how they are written.
        if found is not None and (not pa.types.is_list(kind) or pa.types.is_list(table[found].type)):
            columns[name] = _as(kind, table[found])
    return pa.table(columns) if columns else table.select([])


def _as(kind: pa.DataType, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        if not (pa.types.is_string(kind) and pa.types.is_floating(column.type)):
            return column.cast(kind)
    except pa.ArrowException:  # such as 512.5 px, or a stranger's "unknown"
        pass
    return pa.chunked_array([[_value(value, kind) for value in column.to_pylist()]], kind)


def _value(value: Any, kind: pa.DataType) -> str | float | None:
    """One value, or None where it is no such thing."""
    try:
        if pa.types.is_string(kind):
            return None if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        number = float(value)
        return pa.scalar(int(number) if pa.types.is_integer(kind) else number, kind).as_py()
    except (TypeError, ValueError, OverflowError, pa.ArrowException):
        return None


def numbered(table: pa.Table, stem: str, first: int) -> pa.Table:
    """The table with ids made of file and row number, where it has none."""
    if "id" in table.column_names:
        return table
    return table.append_column("id", [[f"{stem}/{first + row:09d}" for row in range(len(table))]])


def without(table: pa.Table, column: str) -> tuple[pa.Table, int]:
    """The rows that have a value in `column`, and how many have not."""
    if column not in table.column_names:
        return table.slice(0, 0), len(table)
    kept = table.filter(pc.fill_null(pc.not_equal(table[column], ""), False))
    return kept, len(table) - len(kept)


def offenders(rows: Iterator[tuple[int, str]], most: int = 3) -> str:
    """The first rows that a sentence names."""
    return "; ".join(f"row {number}: {text[:120]!r}" for number, text in islice(rows, most))
