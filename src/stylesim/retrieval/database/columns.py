"""The columns of a style database: their kinds, and the conversion of a table of items to Arrow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float

from stylesim.core.errors import DataError
from stylesim.retrieval.database.item_checks import check_ids, check_text

Kind = Literal["text", "integer", "number", "boolean", "tags", "bytes"]

KINDS: tuple[Kind, ...] = get_args(Kind)
ARROW_TYPES: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "tags": pa.list_(pa.string()),
    "bytes": pa.binary(),
}
STANDARD_COLUMNS: dict[str, Kind] = {
    "id": "text",
    "tags": "tags",
    "content": "text",
    "source": "text",
    "licence": "text",
    "url": "text",
    "period": "text",
    "thumbnail": "bytes",
}
"""Columns of every database. `thumbnail` is an encoded image."""
FILTER_WORDS = frozenset({"and", "or", "not", "in", "like", "is", "null", "between", "contains", "true", "false"})
"""The words of a filter, in lower case."""
RESERVED = FILTER_WORDS | {"descriptor", "position"}
"""Names that no additional column may have."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)


def item_schema(dim: int) -> pa.Schema:
    """Return the schema of a new database with descriptors of `dim` dimensions."""
    fields = [pa.field(name, ARROW_TYPES[kind]) for name, kind in STANDARD_COLUMNS.items()]
    return pa.schema([*fields, pa.field("descriptor", pa.list_(pa.float32(), dim))])


def column_kinds(schema: pa.Schema) -> dict[str, Kind]:
    """Return the kinds of the columns of a schema, the descriptor excluded."""
    kinds: dict[pa.DataType, Kind] = {type: kind for kind, type in ARROW_TYPES.items()}
    return {field.name: kinds[field.type] for field in schema if field.name != "descriptor"}


def new_columns(items: pd.DataFrame, known: Mapping[str, Kind]) -> dict[str, Kind]:
    """Return the columns of `items` that a database does not have, with the kinds of their values.

    Columns without any value, and `position`, are left out.

    Raises:
        DataError: If a name is not a plain identifier, or a column has values of several or of unknown kinds.
    """
    kinds: dict[str, Kind] = {}
    for name in items.columns:
        if name in known or name == "position" or not (present := _present(items[name].tolist())):
            continue
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESERVED:
            raise DataError(
                f"A column cannot be called {str(name)[:80]!r}. A name has up to 63 lower-case letters, digits and"
                f" underscores, begins with a letter, and is none of {', '.join(sorted(RESERVED))}."
            )
        kinds[name] = _kind_of(name, present)
    return kinds


def arrow_table(descriptors: Float[np.ndarray, "n d"], items: pd.DataFrame, columns: Mapping[str, Kind]) -> pa.Table:
    """Convert items and their descriptors to a table with the given columns; absent columns are null.

    Args:
        descriptors: float32.
        items: With at least `id`; NaN and None are missing values.
        columns: The columns of the database.

    Raises:
        DataError: If a value cannot be stored in its column. The message names the id.
    """
    ids = [str(id) for id in items["id"]]
    check_ids(ids)
    arrays = {}
    for name, kind in columns.items():
        values = items[name].tolist() if name in items else [None] * len(items)
        cells = [_cell(value, name, kind, id) for value, id in zip(values, ids, strict=True)]
        arrays[name] = pa.array(cells, ARROW_TYPES[kind])
    flat = pa.array(np.ascontiguousarray(descriptors, dtype=np.float32).reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(flat, descriptors.shape[1])
    return pa.table({**arrays, "descriptor": vectors})


def item_frame(table: pa.Table) -> pd.DataFrame:
    """Convert columns of items from Arrow to pandas, with None for missing values and lists for tags."""
    return pd.DataFrame({name: pd.Series(table[name].to_pylist(), dtype=object) for name in table.column_names})


def descriptor_matrix(table: pa.Table) -> Float[np.ndarray, "n d"]:
    """Return the descriptors of a table of items."""
    dim = table.schema.field("descriptor").type.list_size
    column = table["descriptor"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # an empty table has no chunk
        return np.empty((0, dim), dtype=np.float32)
    return column.flatten().to_numpy().reshape(len(table), dim)


def _present(values: list[Any]) -> list[Any]:
    return [value for value in values if not is_missing(value)]


def is_missing(value: Any) -> bool:
    """Return whether a cell holds no value: None, NaN, or pandas' NA or NaT."""
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and value != value)


def _kind_of(name: str, values: list[Any]) -> Kind:
    candidates: list[tuple[Kind, tuple[type, ...]]] = [
        ("boolean", (bool, np.bool_)),
        ("integer", (int, np.integer)),
        ("number", (int, float, np.integer, np.floating)),
        ("text", (str,)),
        ("bytes", (bytes,)),
    ]
    for kind, types in candidates:
        if all(isinstance(value, types) and (kind == "boolean" or not isinstance(value, bool)) for value in values):
            return kind
    types = sorted({type(value).__name__ for value in values})
    raise DataError(
        f"The column {name} holds values of the type(s) {', '.join(types)}. A column must hold only text, integers,"
        " numbers, booleans or bytes; convert it, or leave it out."
    )


def _cell(value: Any, name: str, kind: Kind, id: str) -> Any:
    """Convert one value to what its column stores."""
    if kind == "tags":
        tags = [] if is_missing(value) else [str(tag) for tag in ([value] if isinstance(value, str) else value)]
        for tag in tags:
            check_text(tag, name, id)
        return tags
    if is_missing(value):
        return None
    # pandas turns a column of integers with missing values into floats.
    is_whole = isinstance(value, float | np.floating) and float(value).is_integer()
    if kind == "text" and (name in STANDARD_COLUMNS or isinstance(value, str)):
        return check_text(str(int(value)) if is_whole else str(value), name, id)
    if kind == "boolean" and isinstance(value, bool | np.bool_):
        return bool(value)
    if kind == "bytes" and isinstance(value, bytes):
        return value
    if kind == "number" and isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return float(value)
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if kind == "integer" and (is_integer or is_whole) and -(2**63) <= int(value) < 2**63:
        return int(value)
    raise DataError(
        f"The column {name} holds {kind}, but {id!r} has {str(value)[:80]!r} ({type(value).__name__}) there."
    )
