"""The interface of the systems that store a style database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from jaxtyping import Float
from numpy import ndarray

from stylesim.core.errors import ConfigError
from stylesim.retrieval.database.columns import Kind
from stylesim.retrieval.database.where_clause import Condition

SCAN_ROWS = 32_768
"""Number of rows that a scan holds in memory at once."""


class Candidates(NamedTuple):
    """Items that may be neighbours of a query, the nearest first as far as the back end can tell."""

    ids: list[str]
    descriptors: Float[ndarray, "n d"]


class Backend(Protocol):
    """Stores items with their descriptors. Every method that writes is one transaction.

    Attributes:
        location: The folder or URL, without a password.
        about: What `create` stored about the database: format, dimension and encoder.
    """

    location: str
    about: dict[str, Any]

    def columns(self) -> dict[str, Kind]:
        """Return the columns and their kinds."""
        ...

    def count(self, where: Condition | None = None) -> int:
        """Return the number of items, or of those that a condition admits."""
        ...

    def scan(self, columns: Sequence[str], where: Condition | None = None) -> Iterator[pa.Table]:
        """Yield columns (`descriptor` is one) of all items in pieces of at most SCAN_ROWS, in any order."""
        ...

    def fetch(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Return columns of the items with these ids, in any order. Ids that do not exist are left out."""
        ...

    def existing(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that exist."""
        ...

    def insert(self, table: pa.Table) -> int:
        """Add the items whose ids do not exist yet, and return their number."""
        ...

    def upsert(self, table: pa.Table) -> None:
        """Add items, replacing those that exist."""
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Remove items and return their number."""
        ...

    def delete_where(self, where: Condition) -> int:
        """Remove the items that a condition admits, and return their number."""
        ...

    def add_columns(self, columns: Mapping[str, Kind]) -> None:
        """Add columns, null for every item."""
        ...

    def nearest(
        self, query: Float[ndarray, " d"], count: int, where: Condition | None, effort: int | None
    ) -> Candidates:
        """Return the `count` items with the largest inner product, in float32.

        Args:
            query: A descriptor.
            count: The number of candidates.
            where: Only these items.
            effort: How thoroughly the index is searched; None searches without the index.
        """
        ...

    def is_faster_than_scan(self, where: Condition | None) -> bool:
        """Return whether `nearest` without an index answers a single query faster than a scan."""
        ...

    def optimize(self, keep: timedelta) -> None:
        """Compact the storage. Versions older than `keep` that no reader needs are removed."""
        ...

    def build_index(self) -> dict[str, Any]:
        """Build the index anew, and describe it: `kind`, parameters, and `efforts` to try, the lowest first."""
        ...

    def read_index_info(self) -> dict[str, Any] | None:
        """Return what `write_index_info` wrote; None if there is no index that has been measured."""
        ...

    def write_index_info(self, info: Mapping[str, Any] | None) -> None:
        """Store what is known about the index; None removes it."""
        ...

    def close(self) -> None:
        """Release connections and locks."""
        ...


def is_url(location: str) -> bool:
    """Return whether a location is the URL of a PostgreSQL server, and not a folder."""
    return location.startswith(("postgresql://", "postgres://"))


def create_backend(location: str, about: Mapping[str, Any]) -> Backend:
    """Create an empty database at a folder or URL that does not hold one."""
    if is_url(location):
        from stylesim.retrieval.database.backends.postgres_backend import PostgresBackend

        return PostgresBackend.create(location, about)
    from stylesim.retrieval.database.backends.lance_backend import LanceBackend

    return LanceBackend.create(location, about)


def open_backend(location: str) -> Backend:
    """Open the database at a folder or URL."""
    if is_url(location):
        from stylesim.retrieval.database.backends.postgres_backend import PostgresBackend

        return PostgresBackend(location)
    from stylesim.retrieval.database.backends.lance_backend import LanceBackend

    return LanceBackend(location)


def database_exists(location: str) -> bool:
    """Return whether a folder exists, or a server has the schema."""
    if is_url(location):
        from stylesim.retrieval.database.backends.postgres_schema import schema_exists

        return schema_exists(location)
    return Path(location).expanduser().exists()


def missing_package(package: str, extra: str) -> ConfigError:
    """Return the error that says how to install a back end."""
    return ConfigError(f'This database needs the package {package}. Install it with: pip install "stylesim[{extra}]"')
