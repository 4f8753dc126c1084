"""The parts of SQL statements for PostgreSQL: types, filters, URLs and vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import parse_qsl, urldefrag, urlsplit, urlunsplit

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from stylesim.core.errors import ConfigError, DataError
from stylesim.retrieval.database.backends.backend import missing_package
from stylesim.retrieval.database.columns import Kind
from stylesim.retrieval.database.where_clause import Condition, Dialect, Value, write_sql

try:
    import psycopg
    from psycopg import sql
except ImportError:
    raise missing_package("psycopg and pgvector", "postgres") from None

DEFAULT_SCHEMA = "stylesim"
SQL_TYPES: dict[Kind, str] = {
    # Text is compared byte by byte, as LanceDB does, whatever the language of the server.
    "text": 'text COLLATE "C"',
    "integer": "bigint",
    "number": "double precision",
    "boolean": "boolean",
    "tags": "text[]",
    "bytes": "bytea",
}


@contextmanager
def translated_errors(location: str) -> Iterator[None]:
    """Raise the errors of the server as DataError."""
    try:
        yield
    except psycopg.Error as error:
        text = " ".join(str(error).split())
        raise DataError(f"The database {location} reports an error: {text}") from error


def split_url(url: str) -> tuple[str, str, str]:
    """Return a URL as messages show it, as libpq takes it, and the schema."""
    plain, schema = urldefrag(url)
    schema = schema or DEFAULT_SCHEMA
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema, re.ASCII) or schema.startswith("pg_"):
        raise ConfigError(
            f"The schema after # must have up to 63 lower-case letters, digits and underscores, got {schema[:80]!r}."
        )
    parts = urlsplit(plain)
    if parts.password or any(key.endswith("password") for key, _ in parse_qsl(parts.query)):
        raise ConfigError(
            "The URL of a database may not contain a password, because run folders and logs keep it. Put the password"
            " into the environment variable PGPASSWORD or the file ~/.pgpass."
        )
    return f"{urlunsplit(parts)}#{schema}", plain, schema


def where_part(where: Condition | None) -> tuple[sql.SQL | sql.Composed, list[Value]]:
    """Return the WHERE part of a statement and its parameters."""
    values: list[Value] = []
    if where is None:
        return sql.SQL(""), values

    def parameter(value: Value) -> str:
        values.append(value)
        return "%s"

    # The names of columns are plain identifiers, which the parser has checked.
    dialect = Dialect(column='"{}"'.format, value=parameter, has_tag="{column} @> ARRAY[{value}]::text[]")
    return sql.SQL(" WHERE " + write_sql(where, dialect)), values  # pyright: ignore[reportArgumentType]


def type_name(kind: Kind) -> sql.SQL:
    """Return the type of a column, as CREATE TABLE takes it."""
    return sql.SQL(SQL_TYPES[kind])  # pyright: ignore[reportArgumentType]


def select_part(columns: Sequence[str]) -> sql.Composed:
    """Return the columns of a SELECT; descriptors come as `read_vectors` reads them."""
    vector = sql.SQL("vector_send(descriptor)")
    return sql.SQL(", ").join(vector if name == "descriptor" else sql.Identifier(name) for name in columns)


def half_cast(value: str, dim: int) -> sql.SQL:
    """Return an expression converted to float16, as an index beyond 2,000 dimensions holds it."""
    return sql.SQL(f"({value})::halfvec({int(dim)})")  # pyright: ignore[reportArgumentType]


def read_vectors(values: Sequence[bytes], dim: int) -> Float[ndarray, "n d"]:
    """Read vectors as pgvector sends them: two int16 (dimensions, 0), then float32, all big-endian."""
    joined = np.frombuffer(b"".join(values), dtype=np.uint8).reshape(len(values), 4 + 4 * dim)
    return np.ascontiguousarray(joined[:, 4:]).view(">f4").astype(np.float32)
