"""The embedded back end: a LanceDB table in a folder, with one writer at a time and any number of readers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout
from jaxtyping import Float
from numpy import ndarray

from stylesim.core.errors import DataError
from stylesim.core.file_names import printable
from stylesim.core.files import atomic_path, write_json
from stylesim.retrieval.database.backends.backend import SCAN_ROWS, Candidates, missing_package
from stylesim.retrieval.database.columns import ARROW_TYPES, Kind, column_kinds, descriptor_matrix, item_schema
from stylesim.retrieval.database.where_clause import Condition, Dialect, Membership, Value, write_sql

ABOUT, INDEX, LOCK, TABLE = "database.json", "index.json", ".writer.lock", "items"
FILTER_IDS = 1000
"""Number of ids in one filter."""


class LanceBackend:
    """The items of a database in `<folder>/items.lance`, with `database.json` and `index.json` beside it.

    The first method that writes takes a lock, which is held until `close` or the end of the process. LanceDB never
    changes a file: each write ends with a new version, and a reader sees the newest one that is complete.

    Args:
        folder: A folder that `create` has made.

    Raises:
        DataError: If the folder is not a database, or cannot be read.
        ConfigError: If lancedb is not installed.
    """

    def __init__(self, folder: str) -> None:
        self.location = folder
        self._folder = Path(folder).expanduser().absolute()
        self._lock = FileLock(self._folder / LOCK)
        if not (self._folder / ABOUT).is_file():
            raise DataError(f"{folder} is not a style database: it has no {ABOUT}. Build one with `stylesim ingest`.")
        try:
            self.about = json.loads((self._folder / ABOUT).read_text())
            self._table = _connect(self._folder).open_table(TABLE)
            self._table.count_rows()
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"The style database {folder} cannot be read ({error}).") from error

    @classmethod
    def create(cls, folder: str, about: Mapping[str, Any]) -> LanceBackend:
        """Make a new folder, which appears only when it is complete.

        Raises:
            DataError: If the folder exists.
            ConfigError: If lancedb is not installed.
        """
        path = Path(folder).expanduser().absolute()
        if path.exists():
            raise DataError(f"{folder} already exists. Open it, or choose another folder.")
        with atomic_path(path) as partial:
            partial.mkdir()
            _connect(partial).create_table(TABLE, schema=item_schema(about["dim"]))
            write_json(partial / ABOUT, about)
        return cls(folder)

    def columns(self) -> dict[str, Kind]:
        return column_kinds(self._table.schema)

    def count(self, where: Condition | None = None) -> int:
        return self._table.count_rows(_sql(where))

    def scan(self, columns: Sequence[str], where: Condition | None = None) -> Iterator[pa.Table]:
        query = self._table.search().select(list(columns))
        if where is not None:
            query = query.where(_sql(where))
        for batch in query.to_batches(batch_size=SCAN_ROWS):
            yield pa.Table.from_batches([batch])

    def fetch(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        parts = [part for named in _named(ids) for part in self.scan(columns, named)]
        return pa.concat_tables([self._empty(columns), *parts])

    def existing(self, ids: Sequence[str]) -> set[str]:
        # A scan of the column: a filter that names many ids is slower.
        wanted = pa.array(ids, pa.string())
        parts = (part["id"].filter(pc.is_in(part["id"], wanted)) for part in self.scan(["id"]))  # pyright: ignore
        return {id for part in parts for id in part.to_pylist()}

    def insert(self, table: pa.Table) -> int:
        self._become_writer()
        if existing := self.existing(table["id"].to_pylist()):
            table = table.filter(pa.array([id not in existing for id in table["id"].to_pylist()], pa.bool_()))
        if len(table):
            self._table.add(table)
        return len(table)

    def upsert(self, table: pa.Table) -> None:
        self._become_writer()
        merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(table)

    def delete(self, ids: Sequence[str]) -> int:
        return sum(self.delete_where(named) for named in _named(ids))

    def delete_where(self, where: Condition) -> int:
        self._become_writer()
        if count := self.count(where):
            self._table.delete(_sql(where))
        return count

    def add_columns(self, columns: Mapping[str, Kind]) -> None:
        self._become_writer()
        self._table.add_columns([pa.field(name, ARROW_TYPES[kind]) for name, kind in columns.items()])

    def nearest(
        self, query: Float[ndarray, " d"], count: int, where: Condition | None, effort: int | None
    ) -> Candidates:
        search = self._table.search(query, vector_column_name="descriptor").distance_type("dot")
        search = search.select(["id", "descriptor", "_distance"]).limit(count)
        if effort is None:
            search = search.bypass_vector_index()
        else:
            # The items that a filter admits are spread over more cells.
            search = search.nprobes(effort if where is None else 4 * effort).refine_factor(4)
        if where is not None:
            search = search.where(_sql(where), prefilter=True)
        found = search.to_arrow()
        return Candidates(found["id"].to_pylist(), descriptor_matrix(found))

    def is_faster_than_scan(self, where: Condition | None) -> bool:
        return where is None  # under a filter, LanceDB reads the descriptors of admitted items one by one

    def optimize(self, keep: timedelta) -> None:
        self._become_writer()
        if self.count() and not any(index.columns == ["id"] for index in self._table.list_indices()):
            self._table.create_scalar_index("id")
        self._table.optimize(cleanup_older_than=keep)

    def build_index(self) -> dict[str, Any]:
        self._become_writer()
        cells = max(1, round(self.count() ** 0.5))
        self._table.create_index(
            metric="dot", vector_column_name="descriptor", index_type="IVF_SQ", num_partitions=cells, replace=True
        )
        efforts = sorted({min(cells, probes) for probes in (16, 32, 64, 128, 256)})
        return {"kind": "IVF_SQ", "cells": cells, "efforts": efforts}

    def read_index_info(self) -> dict[str, Any] | None:
        try:
            return json.loads((self._folder / INDEX).read_text())
        except FileNotFoundError:
            return None

    def write_index_info(self, info: Mapping[str, Any] | None) -> None:
        self._become_writer()
        if info is None:
            (self._folder / INDEX).unlink(missing_ok=True)
        else:
            write_json(self._folder / INDEX, info)

    def close(self) -> None:
        self._lock.release()

    def _become_writer(self) -> None:
        if self._lock.is_locked:
            return
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise DataError(
                f"Another process is writing to {self.location}. Wait until it ends; reading is possible meanwhile."
            ) from None
        except OSError as error:
            raise DataError(f"{self.location} cannot be written ({error.strerror or error}).") from error

    def _empty(self, columns: Sequence[str]) -> pa.Table:
        schema = self._table.schema
        return pa.schema([schema.field(name) for name in columns]).empty_table()


def _connect(folder: Path) -> Any:
    os.environ.setdefault("LANCEDB_LOG", "error")  # its warnings concern only its own query plans
    try:
        import lancedb
    except ImportError:
        raise missing_package("lancedb", "database") from None
    if printable(folder) != str(folder):
        raise DataError(f"A style database must be in a folder whose name is valid UTF-8, got {printable(folder)}.")
    # Zero: each read sees what other processes have written.
    return lancedb.connect(folder, read_consistency_interval=timedelta(0))


def _named(ids: Sequence[str]) -> Iterator[Membership]:
    """Yield filters that together select the items with these ids."""
    for start in range(0, len(ids), FILTER_IDS):
        yield Membership("id", tuple(ids[start : start + FILTER_IDS]))


def _sql(where: Condition | None) -> str | None:
    return None if where is None else write_sql(where, _DIALECT)


def _literal(value: Value) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value).lower()


_DIALECT = Dialect(column="`{}`".format, value=_literal, has_tag="array_has({column}, {value})")
