"""Write the items of a database as a DescriptorSet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylesim.core.errors import DataError
from stylesim.core.files import atomic_path
from stylesim.retrieval.database.backends.backend import Backend
from stylesim.retrieval.database.columns import descriptor_matrix
from stylesim.retrieval.database.where_clause import Condition
from stylesim.retrieval.descriptor_set import COLUMNS, DescriptorSet, item_table
from stylesim.retrieval.descriptor_writer import DescriptorWriter

METADATA = "metadata.parquet"
"""File of an exported descriptor set that holds the columns which a DescriptorSet does not have."""


def export_items(
    backend: Backend, meta: Mapping[str, Any], folder: Path, where: str | None, condition: Condition | None
) -> DescriptorSet:
    """Write the items that a condition admits to a new folder, ordered by id.

    Args:
        backend: The database.
        meta: The `meta` of the set.
        folder: The folder, which must not exist.
        where: The text of the condition, for messages.
        condition: Only these items; None is all.

    Raises:
        DataError: If the folder exists, or no item is admitted.
    """
    columns = backend.columns()
    further = [name for name in columns if name not in COLUMNS]
    ids = sorted(id for piece in backend.scan(["id"], condition) for id in piece["id"].to_pylist())
    if not ids:
        reason = "is empty" if where is None else f"has no item that where={where!r} admits"
        raise DataError(f"{backend.location} {reason}, so there is nothing to export.")
    positions = {id: position for position, id in enumerate(ids)}
    writer = DescriptorWriter(folder, backend.about["dim"], dict(meta))
    metadata = []
    for piece in backend.scan([*columns, "descriptor"], condition):
        # An item that was added after the ids were read is left out.
        piece = piece.filter(pa.array([id in positions for id in piece["id"].to_pylist()], pa.bool_()))
        cells = zip(*(piece[name].to_pylist() for name in ("id", "tags", "content", "source")), strict=True)
        rows = item_table((id, tags, content, source or "", positions[id]) for id, tags, content, source in cells)
        writer.add(descriptor_matrix(piece), rows)
        metadata.append(piece.select(["id", *further]))
    written = writer.finish()
    with atomic_path(folder / METADATA) as partial:
        pq.write_table(pa.concat_tables(metadata).sort_by("id"), partial)
    return written
