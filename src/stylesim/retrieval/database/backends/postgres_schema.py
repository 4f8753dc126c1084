"""Create the schema of a database on a PostgreSQL server, or find out whether it exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stylesim.core.errors import DataError
from stylesim.retrieval.database.backends.backend import missing_package
from stylesim.retrieval.database.backends.postgres_sql import split_url, translated_errors, type_name
from stylesim.retrieval.database.columns import STANDARD_COLUMNS

try:
    import psycopg
    from psycopg import sql
    from psycopg.types.json import Jsonb
except ImportError:
    raise missing_package("psycopg and pgvector", "postgres") from None

MAX_DIM = 16_000
"""Largest number of dimensions that pgvector stores."""


def create_schema(url: str, about: Mapping[str, Any]) -> None:
    """Create the schema that a URL names, with the tables `items` and `about`.

    Args:
        url: `postgresql://USER@HOST:PORT/DATABASE#SCHEMA`.
        about: What to store about the database; `dim` is the number of dimensions of a descriptor.

    Raises:
        DataError: If the schema exists, the user may not create it, or the descriptors are too long.
    """
    if about["dim"] > MAX_DIM:
        raise DataError(f"PostgreSQL stores at most {MAX_DIM:,} dimensions, got {about['dim']:,}. Use a folder.")
    location, plain_url, schema = split_url(url)
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(name), type_name(kind)) for name, kind in STANDARD_COLUMNS.items()
    ]
    with translated_errors(location), psycopg.connect(plain_url) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        if _has_schema(connection, schema):
            raise DataError(f"The schema {schema} of {location} already exists. Open it, or choose another #SCHEMA.")
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(
            sql.SQL("CREATE TABLE {} ({}, descriptor vector({}) NOT NULL, PRIMARY KEY (id))").format(
                sql.Identifier(schema, "items"), sql.SQL(", ").join(columns), sql.Literal(about["dim"])
            )
        )
        connection.execute(sql.SQL("CREATE INDEX ON {} USING gin (tags)").format(sql.Identifier(schema, "items")))
        connection.execute(
            sql.SQL("CREATE TABLE {} (key text PRIMARY KEY, value jsonb)").format(sql.Identifier(schema, "about"))
        )
        connection.execute(
            sql.SQL("INSERT INTO {} VALUES ('database', %s)").format(sql.Identifier(schema, "about")),
            [Jsonb(dict(about))],
        )


def schema_exists(url: str) -> bool:
    """Return whether the server has the schema that a URL names."""
    location, plain_url, schema = split_url(url)
    with translated_errors(location), psycopg.connect(plain_url) as connection:
        return _has_schema(connection, schema)


def _has_schema(connection: psycopg.Connection, schema: str) -> bool:
    return connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [schema]).fetchone() is not None
