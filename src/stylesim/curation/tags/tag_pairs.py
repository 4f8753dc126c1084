"""Convert the tags of a table to (row, tag) pairs and back, to count, filter and merge them."""

# pyright: reportAttributeAccessIssue=false
# pyarrow generates its compute functions when it is imported.

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int


def tag_pairs(table: pa.Table) -> tuple[Int[np.ndarray, " t"], pa.Array]:
    """Return the row and the tag of every distinct (row, tag) pair, in row order."""
    column = table["tags"].combine_chunks()
    rows, tags = pc.list_parent_indices(column), pc.list_flatten(column)
    valid = tags.is_valid()  # a list may contain null
    return unique_pairs(rows.filter(valid).to_numpy(), tags.filter(valid))


def unique_pairs(rows: Int[np.ndarray, " t"], tags: pa.Array) -> tuple[Int[np.ndarray, " u"], pa.Array]:
    """Return the first occurrence of each pair, in the order of the input."""
    encoded = tags.dictionary_encode()
    codes = rows * np.int64(len(encoded.dictionary)) + encoded.indices.to_numpy()
    first = np.sort(np.unique(codes, return_index=True)[1])
    return rows[first], tags.take(pa.array(first))


def set_tags(table: pa.Table, rows: Int[np.ndarray, " t"], tags: pa.Array) -> pa.Table:
    """Return the table with its tags replaced.

    Args:
        table: The table.
        rows: The row of each tag, in ascending order.
        tags: The tags.
    """
    ends = np.bincount(rows, minlength=len(table)).cumsum()
    column = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), tags)
    return table.set_column(table.column_names.index("tags"), "tags", column)


def merge_tags(table: pa.Table, targets: Int[np.ndarray, " n"]) -> pa.Table:
    """Move the tags of each row to its target row.

    Args:
        table: The table.
        targets: The target of each row; its tags are removed if this is -1.

    Returns:
        The table with the merged tags. A target's own tags come first.
    """
    rows, tags = tag_pairs(table)
    target_rows = targets[rows]
    order = np.lexsort((rows, rows != target_rows, target_rows))
    order = order[target_rows[order] >= 0]
    return set_tags(table, *unique_pairs(target_rows[order], tags.take(pa.array(order))))
