"""The parquet parts that a stage writes: their columns, counts and files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from stylesim.core.files import atomic_path


class Part(NamedTuple):
    """What a stage makes of one part of its input."""

    table: pa.Table
    """The rows for the next stage, in the order of the input. Missing columns of the stage's schema become null."""
    counts: Mapping[str, int]
    dropped: pa.Table | None = None
    """`id` and `reason` of the dropped rows."""


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table with exactly the columns of a schema; missing columns are null."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def part_paths(folder: Path) -> list[Path]:
    """Return the parts of a stage, in order."""
    return sorted(folder.glob("part-*.parquet"))


def read_counts(part: Path) -> Counter[str]:
    """Return the counts that a part was written with."""
    return Counter(json.loads((pq.read_schema(part).metadata or {}).get(b"counts", b"{}")))


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table atomically as parquet."""
    with atomic_path(path) as partial_path:
        pq.write_table(table, partial_path, compression="zstd", row_group_size=1 << 16)


def write_csv(table: pa.Table, path: Path) -> None:
    """Write a table atomically as CSV."""
    with atomic_path(path) as partial_path:
        pyarrow.csv.write_csv(table, partial_path)
