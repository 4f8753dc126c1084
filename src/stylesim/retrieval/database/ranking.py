"""Search a database: by a scan of all items, by what a server or an index proposes, or under a read-out.

Whatever the route, items are ranked by (float64 similarity descending, id ascending), so two databases with the same
items give the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float

from stylesim.retrieval.database.backends.backend import Backend, Candidates
from stylesim.retrieval.database.columns import descriptor_matrix
from stylesim.retrieval.database.where_clause import Condition
from stylesim.retrieval.exact_search import MARGIN, search
from stylesim.retrieval.inner_products import round_scores
from stylesim.retrieval.readouts import Readout

FEW_QUERIES = 4
"""Up to this number, queries are searched one by one if that is faster; more queries share one scan."""

QUERY_BLOCK = 256
"""Number of queries that are compared with a piece of the items at once."""

Ranked = list[tuple[float, str]]
"""Similarities and ids of a query's neighbours, the nearest first."""


def rank_exactly(
    backend: Backend,
    queries: Float[np.ndarray, "q d"],
    k: int,
    where: Condition | None,
    query_ids: Sequence[str] | None,
) -> list[Ranked]:
    """Find the k nearest items of each query, comparing every item that `where` admits."""
    if len(queries) > FEW_QUERIES or not backend.is_faster_than_scan(where):
        return rank_by_scan(scan_candidates(backend, where), queries, k, query_ids)
    return _rank_one_by_one(backend, queries, k, where, query_ids, None)


def rank_by_index(
    backend: Backend,
    queries: Float[np.ndarray, "q d"],
    k: int,
    where: Condition | None,
    query_ids: Sequence[str] | None,
    effort: int,
) -> list[Ranked]:
    """Find the k nearest items of each query among those that the index of the back end proposes."""
    return _rank_one_by_one(backend, queries, k, where, query_ids, effort)


def _rank_one_by_one(
    backend: Backend,
    queries: Float[np.ndarray, "q d"],
    k: int,
    where: Condition | None,
    query_ids: Sequence[str] | None,
    effort: int | None,
) -> list[Ranked]:
    return [
        rank_proposals(
            lambda count, query=query: backend.nearest(query, count, where, effort),
            query,
            k,
            own_id=own,
            is_exact=effort is None,
        )
        for query, own in zip(queries, query_ids or [None] * len(queries), strict=True)
    ]


def rank_readout(
    backend: Backend,
    queries: Float[np.ndarray, "q d"],
    k: int,
    where: Condition | None,
    readout: Readout,
    query_ids: Sequence[str] | None,
) -> list[Ranked]:
    """Find the k best items of each query under a read-out that is fitted on the items that `where` admits."""
    pieces = [piece for piece in scan_candidates(backend, where) if piece.ids]
    if not pieces:
        return [[] for _ in queries]
    ids = [id for piece in pieces for id in piece.ids]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    ids, gallery = [ids[row] for row in order], np.concatenate([piece.descriptors for piece in pieces])[order]
    left, right = readout(queries, gallery, query_ids=query_ids, gallery_ids=ids)
    found = search(left, right, k, query_ids=query_ids, gallery_ids=ids)
    return [
        [(score, ids[row]) for score, row in zip(scores, rows, strict=True) if row >= 0]
        for scores, rows in zip(found.similarities.tolist(), found.indices.tolist(), strict=True)
    ]


def scan_candidates(backend: Backend, where: Condition | None) -> Iterator[Candidates]:
    """Yield all items that `where` admits, in pieces."""
    for piece in backend.scan(["id", "descriptor"], where):
        yield Candidates(piece["id"].to_pylist(), descriptor_matrix(piece))


def rank_by_scan(
    pieces: Iterable[Candidates],
    queries: Float[np.ndarray, "q d"],
    k: int,
    query_ids: Sequence[str] | None = None,
) -> list[Ranked]:
    """Find the k nearest items of each query among all pieces.

    Args:
        pieces: The items, in any order; each is compared with every query.
        queries: Query descriptors, float32.
        k: The number of neighbours.
        query_ids: If given, a query never finds the item with its own id.
    """
    best: list[Ranked] = [[] for _ in queries]
    margin = 2 * _error_bound(queries.shape[1])
    for ids, descriptors in pieces:
        for start in range(0, len(queries), QUERY_BLOCK):
            products = queries[start : start + QUERY_BLOCK] @ descriptors.T
            for number, values in enumerate(products, start):
                ranked = best[number]
                least = (
                    ranked[-1][0] if len(ranked) == k else _nth_largest(values, k + 1)
                )  # one may be the query itself
                rows = np.flatnonzero(values >= least - margin)
                if query_ids is not None:
                    rows = [row for row in rows if ids[row] != query_ids[number]]
                if len(rows):
                    scores = _scores(queries[number], descriptors[rows])
                    best[number] = _merge(ranked, scores, [ids[row] for row in rows], k)
    return best


def rank_proposals(
    propose: Callable[[int], Candidates],
    query: Float[np.ndarray, " d"],
    k: int,
    *,
    own_id: str | None = None,
    is_exact: bool = True,
) -> Ranked:
    """Find the k nearest items of one query among those that a back end proposes in float32.

    Args:
        propose: Returns the given number of nearest items, or all if there are fewer.
        query: A query descriptor of unit length.
        k: The number of neighbours.
        own_id: An item that is left out.
        is_exact: Whether the proposals come from a comparison with every item. Then more are requested until no other
            item can be among the k nearest.
    """
    count = k + MARGIN
    while True:
        ids, descriptors = propose(count)
        scores = _scores(query, descriptors)
        kept = [row for row, id in enumerate(ids) if id != own_id]
        ranked = _merge([], scores[kept], [ids[row] for row in kept], k)
        complete = len(ids) < count
        if not is_exact or complete or ranked[-1][0] > scores.min() + 2 * _error_bound(len(query)):
            return ranked
        count *= 4


def _error_bound(dim: int) -> float:
    """Return a bound on the error of an inner product in float32 of unit vectors (whose length is 1 within 1 %)."""
    return 1.03 * (dim + 2) * float(np.finfo(np.float32).eps)


def _nth_largest(values: Float[np.ndarray, " m"], n: int) -> float:
    """Return the n-th largest value, or -inf if there are fewer."""
    return float(np.partition(values, -n)[-n]) if len(values) >= n else -np.inf


def _scores(query: Float[np.ndarray, " d"], descriptors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    # vecdot sums each row separately, so equal rows get equal sums whatever the other rows are.
    return round_scores(np.vecdot(descriptors.astype(np.float64), query.astype(np.float64)))


def _merge(before: Ranked, scores: Float[np.ndarray, " n"], ids: Sequence[str], k: int) -> Ranked:
    pairs = [*before, *zip(scores.tolist(), ids, strict=True)]
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:k]
