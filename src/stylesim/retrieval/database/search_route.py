"""Decide whether a search compares every item of a database or uses the index."""

from __future__ import annotations

from typing import Any

from stylesim.core.errors import DataError
from stylesim.retrieval.database.backends.backend import Backend
from stylesim.retrieval.database.where_clause import Condition

EXACT_BELOW = 200_000
"""A search compares all items of a database with fewer items than this."""
EXACT_FILTERED_BELOW = 20_000
"""A search compares all items that a filter admits if there are fewer: an index would miss too many of them."""


def index_to_use(backend: Backend, where: Condition | None, exact: bool | None) -> dict[str, Any] | None:
    """Return what is known about the index, or None if every item is to be compared.

    Args:
        backend: The database.
        where: The filter of the search.
        exact: True compares every item, False uses the index, and None decides by the number of items.

    Raises:
        DataError: If `exact` is False and there is no index.
    """
    if exact:
        return None
    index = backend.read_index_info()
    if exact is False and index is None:
        raise DataError(f"{backend.location} has no index. Call optimize(exact_below=0) first, or search exactly.")
    if exact is False or index is None:
        return index
    few = backend.count() < EXACT_BELOW or (where is not None and backend.count(where) < EXACT_FILTERED_BELOW)
    return None if few else index
