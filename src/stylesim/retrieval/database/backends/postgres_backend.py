"""The served back end: a schema of a PostgreSQL database with the pgvector extension."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pyarrow as pa
from jaxtyping import Float
from numpy import ndarray

from stylesim.core.errors import DataError
from stylesim.retrieval.database.backends.backend import SCAN_ROWS, Candidates, missing_package
from stylesim.retrieval.database.backends.postgres_schema import create_schema
from stylesim.retrieval.database.backends.postgres_sql import (
    SQL_TYPES,
    half_cast,
    read_vectors,
    select_part,
    split_url,
    translated_errors,
    type_name,
    where_part,
)
from stylesim.retrieval.database.columns import ARROW_TYPES, Kind, column_kinds, descriptor_matrix
from stylesim.retrieval.database.where_clause import Condition

try:
    import psycopg
    from pgvector.psycopg import register_vector
    from psycopg import sql
    from psycopg.types.json import Jsonb
except ImportError:
    raise missing_package("psycopg and pgvector", "postgres") from None

MAX_INDEXED_DIM, MAX_HALF_INDEXED_DIM = 2000, 4000
"""Largest number of dimensions that pgvector indexes, in float32 and in float16."""
MAINTENANCE_MEMORY = "1GB"
"""Memory in which an HNSW graph is built; a larger graph is finished on disk, slowly."""


class PostgresBackend:
    """The items of a database in the table `items` of a schema, with the table `about` beside it.

    Descriptors are stored in float32. Beyond 2,000 dimensions the index holds them in float16 (halfvec).

    Args:
        url: `postgresql://USER@HOST:PORT/DATABASE#SCHEMA`; the schema is `stylesim` by default. Options of libpq may
            follow as a query, such as `?sslmode=require`. The password comes from PGPASSWORD or ~/.pgpass.

    Raises:
        DataError: If the server cannot be reached, or the schema holds no database.
    """

    def __init__(self, url: str) -> None:
        self.location, self._url, self._schema = split_url(url)
        self._connections = threading.local()
        with self._transaction() as cursor:
            exists = cursor.execute("SELECT to_regclass(%s)", [self._name("about").as_string(None)]).fetchone()
            if exists == (None,):
                raise DataError(
                    f"{self.location} is not a style database: there is no table about in the schema {self._schema}."
                    " Build one with `stylesim ingest`."
                )
            self.about: dict[str, Any] = self._read_about("database") or {}
        self._dim: int = self.about["dim"]

    @classmethod
    def create(cls, url: str, about: Mapping[str, Any]) -> PostgresBackend:
        """Create the schema with its tables.

        Raises:
            DataError: If the schema exists, the user may not create it, or the descriptors are too long.
        """
        create_schema(url, about)
        return cls(url)

    def columns(self) -> dict[str, Kind]:
        kinds: dict[str, Kind] = {
            "text": "text",
            "bigint": "integer",
            "double precision": "number",
            "boolean": "boolean",
            "ARRAY": "tags",
            "bytea": "bytes",
        }
        with self._transaction() as cursor:
            rows = cursor.execute(
                "SELECT column_name, data_type FROM information_schema.columns"
                " WHERE table_schema = %s AND table_name = 'items' AND column_name <> 'descriptor'"
                " ORDER BY ordinal_position",
                [self._schema],
            ).fetchall()
        return {name: kinds[data_type] for name, data_type in rows}

    def count(self, where: Condition | None = None) -> int:
        condition, values = where_part(where)
        with self._transaction() as cursor:
            row = cursor.execute(self._sql("SELECT count(*) FROM {items}{where}", where=condition), values).fetchone()
            assert row is not None
            return row[0]

    def scan(self, columns: Sequence[str], where: Condition | None = None) -> Iterator[pa.Table]:
        condition, values = where_part(where)
        statement = self._sql("SELECT {columns} FROM {items}{where}", columns=select_part(columns), where=condition)
        kinds = self.columns()
        with self._transaction() as cursor, cursor.connection.cursor(name="scan", binary=True) as rows:
            rows.execute(statement, values)
            while some := rows.fetchmany(SCAN_ROWS):
                yield self._table(some, columns, kinds)

    def fetch(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        statement = self._sql("SELECT {columns} FROM {items} WHERE id = ANY(%s)", columns=select_part(columns))
        with self._transaction() as cursor, cursor.connection.cursor(binary=True) as rows:
            return self._table(rows.execute(statement, [list(ids)]).fetchall(), columns, self.columns())

    def existing(self, ids: Sequence[str]) -> set[str]:
        statement = self._sql("SELECT id FROM {items} WHERE id = ANY(%s)")
        with self._transaction() as cursor:
            return {id for (id,) in cursor.execute(statement, [list(ids)])}

    def insert(self, table: pa.Table) -> int:
        return self._copy(table, sql.SQL("DO NOTHING"))

    def upsert(self, table: pa.Table) -> None:
        names = [sql.Identifier(name) for name in table.column_names if name != "id"]
        changes = sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(name) for name in names)
        self._copy(table, sql.SQL("DO UPDATE SET {}").format(changes))

    def delete(self, ids: Sequence[str]) -> int:
        with self._transaction() as cursor:
            return cursor.execute(self._sql("DELETE FROM {items} WHERE id = ANY(%s)"), [list(ids)]).rowcount

    def delete_where(self, where: Condition) -> int:
        condition, values = where_part(where)
        with self._transaction() as cursor:
            return cursor.execute(self._sql("DELETE FROM {items}{where}", where=condition), values).rowcount

    def add_columns(self, columns: Mapping[str, Kind]) -> None:
        with self._transaction() as cursor:
            for name, kind in columns.items():
                column = sql.SQL("{} {}").format(sql.Identifier(name), type_name(kind))
                cursor.execute(self._sql("ALTER TABLE {items} ADD COLUMN IF NOT EXISTS {column}", column=column))

    def nearest(
        self, query: Float[ndarray, " d"], count: int, where: Condition | None, effort: int | None
    ) -> Candidates:
        condition, values = where_part(where)
        half = effort is not None and self._dim > MAX_INDEXED_DIM
        distance = half_cast("descriptor", self._dim) if half else sql.SQL("descriptor")
        vector = half_cast("%s::vector", self._dim) if half else sql.SQL("%s")
        statement = self._sql(
            "SELECT id, vector_send(descriptor) FROM {items}{where} ORDER BY {distance} <#> {vector} LIMIT %s",
            where=condition,
            distance=distance,
            vector=vector,
        )
        with self._transaction() as cursor:
            cursor.execute("SET LOCAL jit = off")
            if effort is None:
                cursor.execute("SET LOCAL enable_indexscan = off")
            else:
                # Without it, a filter would leave few of the first `effort` items that the index yields.
                cursor.execute("SET LOCAL hnsw.iterative_scan = relaxed_order")
                cursor.execute(sql.SQL("SET LOCAL hnsw.ef_search = {}").format(sql.Literal(min(1000, effort))))
            with cursor.connection.cursor(binary=True) as rows:
                found = rows.execute(statement, [*values, query, count]).fetchall()
        return Candidates([id for id, _ in found], read_vectors([vector for _, vector in found], self._dim))

    def is_faster_than_scan(self, where: Condition | None) -> bool:
        return True  # a scan sends every descriptor to the client

    def optimize(self, keep: timedelta) -> None:
        with translated_errors(self.location):
            self._connection().execute(self._sql("VACUUM (ANALYZE) {items}"))

    def build_index(self) -> dict[str, Any]:
        if self._dim > MAX_HALF_INDEXED_DIM:
            raise DataError(
                f"pgvector indexes at most {MAX_HALF_INDEXED_DIM:,} dimensions, got {self._dim:,}. Search exactly, or"
                " reduce the descriptors with a read-out before they are added."
            )
        half = self._dim > MAX_INDEXED_DIM
        column = half_cast("descriptor", self._dim) if half else sql.SQL("descriptor")
        operators = sql.SQL("halfvec_ip_ops" if half else "vector_ip_ops")
        with self._transaction() as cursor:
            cursor.execute(sql.SQL("SET LOCAL maintenance_work_mem = {}").format(sql.Literal(MAINTENANCE_MEMORY)))
            # Without parallel workers, which need as much shared memory; containers often have 64 MB of it.
            cursor.execute("SET LOCAL max_parallel_maintenance_workers = 0")
            cursor.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(self._name("items_hnsw")))
            cursor.execute(
                self._sql(
                    "CREATE INDEX items_hnsw ON {items} USING hnsw (({column}) {ops})", column=column, ops=operators
                )
            )
        return {"kind": "HNSW halfvec" if half else "HNSW", "efforts": [40, 80, 160, 320, 640]}

    def read_index_info(self) -> dict[str, Any] | None:
        with self._transaction():
            return self._read_about("index")

    def write_index_info(self, info: Mapping[str, Any] | None) -> None:
        with self._transaction() as cursor:
            cursor.execute(self._sql("DELETE FROM {about} WHERE key = 'index'"))
            if info is not None:
                value = Jsonb(dict(info))
                cursor.execute(self._sql("INSERT INTO {about} VALUES ('index', %s)"), [value])

    def close(self) -> None:
        if (connection := getattr(self._connections, "own", None)) is not None:
            connection.close()

    def _copy(self, table: pa.Table, on_conflict: sql.Composable) -> int:
        """Copy items into a temporary table and from there into `items`; return how many were inserted or changed."""
        names = table.column_names
        kinds = column_kinds(table.schema)
        types = ["vector" if name == "descriptor" else SQL_TYPES[kinds[name]].partition(" C")[0] for name in names]
        values = [_column_values(table, name) for name in names]
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        with self._transaction() as cursor:
            cursor.execute(self._sql("CREATE TEMPORARY TABLE added (LIKE {items}) ON COMMIT DROP"))
            copy_sql = sql.SQL("COPY added ({}) FROM STDIN WITH (FORMAT binary)").format(columns)
            with cursor.copy(copy_sql) as copy:
                copy.set_types(types)
                for row in zip(*values, strict=True):
                    copy.write_row(row)
            return cursor.execute(
                self._sql(
                    "INSERT INTO {items} ({columns}) SELECT {columns} FROM added ON CONFLICT (id) {action}",
                    columns=columns,
                    action=on_conflict,
                )
            ).rowcount

    def _table(self, rows: Sequence[tuple[Any, ...]], columns: Sequence[str], kinds: Mapping[str, Kind]) -> pa.Table:
        arrays = {}
        for position, name in enumerate(columns):
            values = [row[position] for row in rows]
            if name == "descriptor":
                flat = pa.array(read_vectors(values, self._dim).reshape(-1))
                arrays[name] = pa.FixedSizeListArray.from_arrays(flat, self._dim)
            else:
                arrays[name] = pa.array(values, ARROW_TYPES[kinds[name]])
        return pa.table(arrays)

    def _read_about(self, key: str) -> dict[str, Any] | None:
        row = self._connection().execute(self._sql("SELECT value FROM {about} WHERE key = %s"), [key]).fetchone()
        return None if row is None else row[0]

    def _name(self, table: str) -> sql.Identifier:
        return sql.Identifier(self._schema, table)

    def _sql(self, statement: str, **parts: sql.Composable) -> sql.Composed:
        """Fill in a statement; `{items}` and `{about}` are this schema's tables."""
        return sql.SQL(statement).format(items=self._name("items"), about=self._name("about"), **parts)  # type: ignore

    def _connection(self) -> psycopg.Connection:
        """Return the connection of this thread, a new one if the server has closed the last."""
        connection = getattr(self._connections, "own", None)
        if connection is None or connection.closed:
            connection = self._connections.own = psycopg.connect(self._url, autocommit=True)
            register_vector(connection)
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor]:
        with translated_errors(self.location):
            connection = self._connection()
            with connection.transaction(), connection.cursor() as cursor:
                yield cursor


def _column_values(table: pa.Table, name: str) -> Any:
    return descriptor_matrix(table) if name == "descriptor" else table[name].to_pylist()
