"""Check ids, texts and descriptors before they are stored in a database or searched with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from stylesim.core.errors import ConfigError, DataError
from stylesim.retrieval.descriptor_set import refuse_bad_descriptors

MAX_ID_BYTES = 2000
"""Largest length of an id in UTF-8. PostgreSQL cannot index longer ones."""


def check_ids(ids: Iterable[str]) -> None:
    """Raise a DataError for an id that is empty, too long, or holds characters that cannot be stored."""
    for id in ids:
        check_text(id, "id", id)
        if not 0 < len(id.encode()) <= MAX_ID_BYTES:
            raise DataError(
                f"An id must have 1 to {MAX_ID_BYTES:,} bytes of UTF-8, got {len(id.encode()):,}: {id[:80]!r}."
            )


def check_text(text: str, name: str, id: str) -> str:
    """Return text that both back ends can store, or raise a DataError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"The {name} of {id!r} is not valid Unicode ({error.reason}), so it cannot be stored."
        ) from None
    if "\0" in text:
        raise DataError(f"The {name} of {id!r} contains a NUL character, which cannot be stored.")
    return text


def check_vectors(vectors: Float[np.ndarray, "n d"], ids: Sequence[str]) -> None:
    """Raise a DataError unless all descriptors are finite and of unit length (within 1 %)."""
    refuse_bad_descriptors(vectors, ids)
    norms = np.linalg.norm(vectors, axis=1)
    if len(bad := np.flatnonzero(abs(norms - 1) > 0.01)):
        raise DataError(
            f"{len(bad)} of {len(ids)} descriptors are not of unit length, such as that of {ids[bad[0]]!r}"
            f" ({norms[bad[0]]:.4g}). A style database compares directions: divide each descriptor by its norm."
        )


def check_queries(
    queries: Float[np.ndarray, "q d"], k: int, query_ids: Sequence[str] | None, dim: int, encoder: str
) -> None:
    """Check the descriptors that a database is searched with.

    Args:
        queries: Query descriptors.
        k: The number of neighbours.
        query_ids: The ids of the queries, if they have any.
        dim: Number of dimensions of the database's descriptors.
        encoder: Name of the database's encoder, for messages.

    Raises:
        DataError: If the queries have another shape, are not of unit length, or do not fit their ids.
        ConfigError: If k is below 1.
    """
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise DataError(
            f"Queries must have the shape [q {dim}], got {list(queries.shape)}. Embed them with the encoder of"
            f" the database, {encoder}."
        )
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}.")
    names = query_ids if query_ids is not None else [f"query {row}" for row in range(len(queries))]
    if len(names) != len(queries):
        raise DataError(f"query_ids must name each of {len(queries)} queries, got {len(names)}.")
    check_vectors(queries, names)
