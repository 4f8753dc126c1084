"""Add items to a database and change their columns, in transactions of limited size."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from stylesim.core.errors import DataError
from stylesim.retrieval.database.backends.backend import Backend
from stylesim.retrieval.database.columns import Kind, arrow_table, descriptor_matrix, item_frame, new_columns
from stylesim.retrieval.database.item_checks import check_ids, check_vectors
from stylesim.retrieval.database.metadata_rows import join_metadata, unique_ids
from stylesim.retrieval.descriptor_set import DescriptorSet

BATCH_ROWS = 32_768
"""Number of items that are written in one transaction."""


def add_items(
    backend: Backend,
    descriptors: DescriptorSet,
    metadata: pd.DataFrame | None,
    existing: Literal["refuse", "skip", "replace"],
) -> int:
    """Add descriptors with their items (see `StyleDatabase.add`).

    Returns:
        The number of items that were added or replaced.

    Raises:
        DataError: If an id exists and `existing` is "refuse", or a descriptor or a value cannot be stored.
    """
    items = join_metadata(descriptors.items, metadata)
    ids = descriptors.ids
    check_ids(ids)
    if existing == "refuse" and (known := backend.existing(list(ids))):
        raise DataError(
            f"{len(known):,} of {len(ids):,} ids are in {backend.location} already, such as {min(known)!r}. Add with"
            ' existing="skip" or "replace", or give the images other ids.'
        )
    columns = _create_columns(backend, items)
    written = 0
    for start in range(0, len(ids), BATCH_ROWS):
        rows = slice(start, start + BATCH_ROWS)
        vectors = np.asarray(descriptors.descriptors[rows], dtype=np.float32)
        check_vectors(vectors, ids[rows])
        table = arrow_table(vectors, items.iloc[rows], columns)
        if existing == "replace":
            backend.upsert(table)
            written += len(table)
        else:
            written += backend.insert(table)
    return written


def update_items(backend: Backend, metadata: pd.DataFrame) -> int:
    """Change columns of items (see `StyleDatabase.update`).

    Returns:
        The number of items.

    Raises:
        DataError: If an id does not exist or occurs twice, or a value does not fit its column.
    """
    ids = unique_ids(metadata)
    if missing := set(ids) - backend.existing(ids):
        raise DataError(f"{len(missing):,} ids are not in {backend.location}, such as {min(missing)!r}.")
    columns = _create_columns(backend, metadata)
    changed = [name for name in metadata.columns if name in columns and name != "id"]
    by_id = metadata.assign(id=ids).set_index("id")
    for start in range(0, len(ids), BATCH_ROWS):
        stored = backend.fetch(ids[start : start + BATCH_ROWS], [*columns, "descriptor"])
        items = item_frame(stored.drop_columns(["descriptor"]))
        for name in changed:
            items[name] = pd.Series(by_id.loc[items["id"], name].tolist(), dtype=object)
        backend.upsert(arrow_table(descriptor_matrix(stored), items, columns))
    return len(ids)


def _create_columns(backend: Backend, table: pd.DataFrame) -> dict[str, Kind]:
    """Create the columns that a table has and the database lacks, and return all columns of the database."""
    columns = backend.columns()
    if new := new_columns(table, columns):
        backend.add_columns(new)
    return columns | new
