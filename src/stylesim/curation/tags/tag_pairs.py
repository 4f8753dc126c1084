"""The tags of a table as pairs of row and tag, which is how they are counted, thinned and merged."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes its compute functions when it is imported.

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int


def tags_of(table: pa.Table) -> tuple[Int[np.ndarray, " t"], pa.Array]:
    """Row and tag of everything that is tagged, row by row; a tag that a row names twice counts once."""
    column = table["tags"].combine_chunks()
    rows, tags = pc.list_parent_indices(column), pc.list_flatten(column)
    named = tags.is_valid()  # a list may hold null
    return once(rows.filter(named).to_numpy(), tags.filter(named))


def once(rows: Int[np.ndarray, " t"], tags: pa.Array) -> tuple[Int[np.ndarray, " u"], pa.Array]:
    """The pairs without those that have come before."""
    encoded = tags.dictionary_encode()
    codes = rows * np.int64(len(encoded.dictionary)) + encoded.indices.to_numpy()
    first = np.sort(np.unique(codes, return_index=True)[1])
    return rows[first], tags.take(pa.array(first))


def with_tags(table: pa.Table, rows: Int[np.ndarray, " t"], tags: pa.Array) -> pa.Table:
    """The table with these tags; `rows` ascend."""
    ends = np.bincount(rows, minlength=len(table)).cumsum()
    column = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), tags)
    return table.set_column(table.column_names.index("tags"), "tags", column)


def merged_tags(table: pa.Table, targets: Int[np.ndarray, " n"]) -> pa.Table:
    """The table with the tags of each row handed to its target, whose own come first; those of target -1 are lost."""
    rows, tags = tags_of(table)
    goes = targets[rows]
    order = np.lexsort((rows, rows != goes, goes))
    order = order[goes[order] >= 0]
    return with_tags(table, *once(goes[order], tags.take(pa.array(order))))
