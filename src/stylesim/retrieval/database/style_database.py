"""StyleDatabase: descriptors with metadata that grow, shrink, and are searched with filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from jaxtyping import Float

from stylesim.core.errors import ConfigError, DataError
from stylesim.retrieval.database.backends.backend import Backend, create_backend, database_exists, open_backend
from stylesim.retrieval.database.columns import Kind, descriptor_matrix, item_frame
from stylesim.retrieval.database.database_neighbours import DatabaseNeighbours, join_ranked
from stylesim.retrieval.database.encoder_identity import descriptor_set_meta, encoder_identity, refuse_other_encoder
from stylesim.retrieval.database.export_items import export_items
from stylesim.retrieval.database.index_recall import build_measured_index, sample_items
from stylesim.retrieval.database.item_changes import add_items, update_items
from stylesim.retrieval.database.item_checks import check_ids, check_queries
from stylesim.retrieval.database.ranking import rank_by_index, rank_exactly, rank_readout
from stylesim.retrieval.database.search_route import EXACT_BELOW, index_to_use
from stylesim.retrieval.database.where_clause import Condition, parse_where
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table
from stylesim.retrieval.readouts import Readout

FORMAT = 1


class StyleDatabase:
    """Descriptors of one encoder with the metadata of their images, in a folder or on a PostgreSQL server.

    Use `create` or `open`, preferably in a `with` block. A folder has one writer at a time (the first process that
    writes, until it closes the database or ends) and any number of readers. What a method has written when it returns
    is kept, even if the process is killed afterwards.

    Attributes:
        location: The folder or URL.
        encoder: What made the descriptors: `dim`, `name`, `weights`, `digest`, `preprocessing`, `licence`,
            `greyscale`, `flips`.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        if (version := backend.about.get("format")) != FORMAT:
            raise DataError(
                f"{backend.location} has the format {version}, but this version of stylesim reads format {FORMAT}."
                " Export it with the version that wrote it, and build it anew."
            )
        self.location = backend.location
        self.encoder: dict[str, Any] = backend.about["encoder"]

    @classmethod
    def create(cls, location: Path | str, meta: Mapping[str, Any], dim: int) -> Self:
        """Create an empty database.

        Args:
            location: A folder that does not exist, or `postgresql://USER@HOST/DATABASE#SCHEMA`.
            meta: Describes the encoder: `DescriptorSet.meta` of any set that will be added.
            dim: Number of dimensions of a descriptor.

        Raises:
            DataError: If there is a database already, or it cannot be created.
            ConfigError: If the package of the back end is not installed.
        """
        about = {"format": FORMAT, "dim": dim, "encoder": encoder_identity(meta, dim)}
        return cls(create_backend(str(location), about))

    @classmethod
    def open(cls, location: Path | str) -> Self:
        """Open a database.

        Args:
            location: The folder, or `postgresql://USER@HOST/DATABASE#SCHEMA`.

        Raises:
            DataError: If there is none, or it cannot be read.
            ConfigError: If the package of the back end is not installed.
        """
        return cls(open_backend(str(location)))

    @classmethod
    def exists(cls, location: Path | str) -> bool:
        """Return whether there is a database at a folder or URL, readable or not."""
        return database_exists(str(location))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection and the writer's lock."""
        self._backend.close()

    def __len__(self) -> int:
        return self._backend.count()

    def count(self, where: str | None = None) -> int:
        """Return the number of items, or of those that a filter admits (see `search`)."""
        return self._backend.count(self._condition(where))

    @property
    def dim(self) -> int:
        """Number of dimensions of a descriptor."""
        return self.encoder["dim"]

    @property
    def columns(self) -> dict[str, Kind]:
        """The columns of the items, with their kinds: text, integer, number, boolean, tags or bytes."""
        return self._backend.columns()

    @property
    def index(self) -> dict[str, Any] | None:
        """The index: its `kind`, the `rows` it was built on, and its measured `recall@10`. None if there is none."""
        return self._backend.read_index_info()

    def refuse_other_encoder(self, meta: Mapping[str, Any], dim: int) -> None:
        """Raise a DataError if a set with this `meta` and dimension could not be added or searched with."""
        refuse_other_encoder(self.encoder, encoder_identity(meta, dim))

    def sample(self, count: int, seed: int = 0) -> DescriptorSet:
        """Return `count` random items, or all if there are fewer."""
        columns = ["id", "tags", "content", "source", "descriptor"]
        table = sample_items(self._backend, count, seed, columns)
        cells = zip(*(table[name].to_pylist() for name in columns[:4]), strict=True)
        rows = item_table(
            (id, tags, content, source or "", row) for row, (id, tags, content, source) in enumerate(cells)
        )
        return DescriptorSet(descriptor_matrix(table).copy(), rows, descriptor_set_meta(self.encoder))

    def add(
        self,
        descriptors: DescriptorSet,
        metadata: pd.DataFrame | None = None,
        *,
        existing: Literal["refuse", "skip", "replace"] = "refuse",
    ) -> int:
        """Add descriptors with their items, in transactions of 32,768.

        Args:
            descriptors: A set of the encoder of this database, in memory or on disk.
            metadata: Additional columns: one row per image with its `id`, in any order; images without a row get no
                values. Columns that the database does not have are created, with the kind of their values.
            existing: What to do with an id that the database has: refuse the whole set, skip the item, or replace the
                item. With "skip", a call that was interrupted can be repeated.

        Returns:
            The number of items that were added or replaced.

        Raises:
            DataError: If the set is of another encoder, an id exists ("refuse"), a descriptor is not finite or not of
                unit length, or a value does not fit its column. The message says what was refused.
        """
        if existing not in ("refuse", "skip", "replace"):
            raise ConfigError(f"existing must be refuse, skip or replace, got {existing!r}.")
        self._refuse_other(descriptors)
        return add_items(self._backend, descriptors, metadata, existing)

    def existing(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that the database has."""
        check_ids(ids)
        return self._backend.existing(list(ids))

    def update(self, metadata: pd.DataFrame) -> int:
        """Change columns of items; their other columns and their descriptors stay as they are.

        Args:
            metadata: One row per item with its `id` and the columns to change. A missing value empties the column.
                Columns that the database does not have are created.

        Returns:
            The number of items.

        Raises:
            DataError: If an id does not exist or occurs twice, or a value does not fit its column.
        """
        return update_items(self._backend, metadata)

    def delete(self, ids: Sequence[str] | None = None, *, where: str | None = None) -> int:
        """Delete items by their ids, or all that a filter admits (see `search`).

        Returns:
            The number of items that were deleted. Ids that do not exist are ignored.

        Raises:
            ConfigError: Unless exactly one of `ids` and `where` is given.
        """
        if (ids is None) == (where is None):
            raise ConfigError("delete takes either ids or where.")
        if ids is not None:
            check_ids(ids)
            return self._backend.delete(list(ids))
        condition = self._condition(where)
        assert condition is not None
        return self._backend.delete_where(condition)

    def search(
        self,
        queries: DescriptorSet | Float[np.ndarray, "q d"],
        k: int,
        *,
        where: str | None = None,
        readout: Readout | None = None,
        query_ids: Sequence[str] | None = None,
        exact: bool | None = None,
    ) -> DatabaseNeighbours:
        """Find the k items with the largest inner product with each query. Ties go to the lower id.

        Args:
            queries: Descriptors of the encoder of this database. A DescriptorSet is checked for that, an array is not.
            k: The number of neighbours.
            where: Only items that this filter admits. It is written as in SQL: comparisons (`period = '1890s'`,
                `year < 1900`), `in ('a', 'b')`, `like 'artist%'`, `between 1 and 2`, `is null`, `tags contains 'x'`,
                joined by `and`, `or`, `not` and parentheses.
            readout: A transformation of descriptors, fitted on the items that `where` admits, which are all read into
                memory.
            query_ids: If given, a query never finds the item with its own id.
            exact: True compares every item; False uses the index; None uses the index if there is one, the database
                has 200,000 items or more, and the filter admits 20,000 or more.

        Raises:
            DataError: If the queries are of another encoder or not finite, or `exact` is False and there is no index.
            ConfigError: If `where` is not a filter, or k is below 1.
        """
        if isinstance(queries, DescriptorSet):
            self._refuse_other(queries)
            vectors = queries.descriptors
        else:
            vectors = queries
        vectors = np.asarray(vectors, dtype=np.float32)
        check_queries(vectors, k, query_ids, self.dim, self.encoder["name"] or "unknown")
        condition = self._condition(where)
        index = index_to_use(self._backend, condition, exact) if readout is None else None
        if readout is not None:
            ranked = rank_readout(self._backend, vectors, k, condition, readout, query_ids)
        elif index is not None:
            ranked = rank_by_index(self._backend, vectors, k, condition, query_ids, index["effort"])
        else:
            ranked = rank_exactly(self._backend, vectors, k, condition, query_ids)
        ids = list(dict.fromkeys(id for pairs in ranked for _, id in pairs))
        return join_ranked(ranked, k, self.items(ids), exact=index is None)

    def items(self, ids: Sequence[str], columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the items with these ids, in this order; ids that do not exist are left out.

        Args:
            ids: The ids.
            columns: The columns to read besides `id`; None reads all but thumbnails.
        """
        names = [name for name, kind in self.columns.items() if kind != "bytes"] if columns is None else columns
        frame = item_frame(self._backend.fetch(list(ids), list(dict.fromkeys(["id", *names]))))
        order = {id: rank for rank, id in enumerate(ids)}
        return frame.sort_values("id", key=lambda column: column.map(order)).reset_index(drop=True)

    def export(self, folder: Path | str, where: str | None = None) -> DescriptorSet:
        """Write the items to a new folder as a DescriptorSet, ordered by id.

        The columns that a DescriptorSet does not have are written beside it, to `metadata.parquet`, which `add` takes
        as `metadata`.

        Raises:
            DataError: If the folder exists, or no item is admitted.
        """
        return export_items(
            self._backend, descriptor_set_meta(self.encoder), Path(folder), where, self._condition(where)
        )

    def optimize(
        self, *, exact_below: int = EXACT_BELOW, keep: timedelta = timedelta(hours=1)
    ) -> dict[str, Any] | None:
        """Compact the storage, and index a database of `exact_below` items or more. Call it after adding many items.

        The recall of the index is measured: 200 items are searched exactly and with the index, which is searched more
        thoroughly until it finds 95 % of the 10 nearest neighbours.

        Args:
            exact_below: Number of items below which no index is built.
            keep: Versions of a folder that are younger than this are kept, for readers in the middle of a search.

        Returns:
            What is known about the index, as the attribute `index`; None if none was built.
        """
        self._backend.optimize(keep)
        rows = len(self)
        if rows < exact_below:
            return None
        return build_measured_index(self._backend, rows)

    def _condition(self, where: str | None) -> Condition | None:
        return None if where is None else parse_where(where, self.columns)

    def _refuse_other(self, descriptors: DescriptorSet) -> None:
        self.refuse_other_encoder(descriptors.meta, descriptors.descriptors.shape[1])
