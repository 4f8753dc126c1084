"""The result of a search in a style database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int


@dataclass(frozen=True)
class DatabaseNeighbours:
    """The k nearest items of every query, the nearest first.

    Attributes:
        indices: Rows of `items`; -1 where a query has fewer than k neighbours.
        similarities: Scores, float32; -inf where the index is -1.
        items: Every item that was found, once: `id`, `tags` and the other columns of the database, without thumbnails.
        exact: Whether every item was compared; otherwise an index proposed the items.
    """

    indices: Int[np.ndarray, "q k"]
    similarities: Float[np.ndarray, "q k"]
    items: pd.DataFrame
    exact: bool

    @property
    def ids(self) -> list[list[str]]:
        """The ids of each query's neighbours."""
        names = self.items["id"].tolist()
        return [[names[index] for index in row if index >= 0] for row in self.indices.tolist()]

    def table(self, query_ids: Sequence[str]) -> pd.DataFrame:
        """Return one row per neighbour: `query`, `rank` from 1, `similarity`, and the columns of the item.

        Args:
            query_ids: A name for each query.
        """
        found = self.indices >= 0
        query, rank = np.nonzero(found)
        table = self.items.iloc[self.indices[found]].reset_index(drop=True)
        table.insert(0, "query", [query_ids[number] for number in query.tolist()])
        table.insert(1, "rank", rank + 1)
        table.insert(2, "similarity", self.similarities[found])
        return table


def join_ranked(
    ranked: Sequence[Sequence[tuple[float, str]]], k: int, items: pd.DataFrame, exact: bool
) -> DatabaseNeighbours:
    """Build the result from (similarity, id) pairs of each query, the nearest first.

    Args:
        ranked: At most k pairs per query.
        k: The number of neighbours asked for.
        items: The items that were found, in any order. A pair whose item is missing was deleted meanwhile.
        exact: Whether every item was compared.
    """
    rows = {id: row for row, id in enumerate(items["id"])}
    indices = np.full((len(ranked), k), -1)
    similarities = np.full((len(ranked), k), -np.inf, dtype=np.float32)
    for query, pairs in enumerate(ranked):
        present = [(similarity, rows[id]) for similarity, id in pairs if id in rows]
        for rank, (similarity, row) in enumerate(present):
            indices[query, rank], similarities[query, rank] = row, similarity
    return DatabaseNeighbours(indices, similarities, items, exact)
