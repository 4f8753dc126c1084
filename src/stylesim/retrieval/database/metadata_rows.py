"""Tables of metadata: one row per image, found by its id."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from stylesim.core.errors import DataError
from stylesim.retrieval.database.columns import is_missing
from stylesim.retrieval.database.item_checks import check_ids


def unique_ids(metadata: pd.DataFrame) -> list[str]:
    """Return the ids of a table of metadata, or raise a DataError if there are none or one occurs twice."""
    if "id" not in metadata:
        raise DataError(f"Metadata needs a column id, got {', '.join(map(str, metadata.columns))}.")
    ids = [str(id) for id in metadata["id"]]
    check_ids(ids)
    if len(set(ids)) < len(ids):
        twice = next(id for id, count in Counter(ids).items() if count > 1)
        raise DataError(f"Metadata has several rows for {len(ids) - len(set(ids))} id(s), the first being {twice!r}.")
    return ids


def join_metadata(items: pd.DataFrame, metadata: pd.DataFrame | None) -> pd.DataFrame:
    """Return the items with further columns; a column that both have is taken from `metadata` where it has a value."""
    if metadata is None:
        return items
    by_id = metadata.assign(id=unique_ids(metadata)).set_index("id")
    joined = items.copy()
    for name in by_id.columns:
        values = by_id[name].reindex(items["id"]).tolist()
        if name in items:
            values = [old if is_missing(new) else new for new, old in zip(values, items[name], strict=True)]
        joined[name] = pd.Series(values, index=items.index, dtype=object)
    return joined
