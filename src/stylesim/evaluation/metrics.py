"""Retrieval metrics, as fractions in [0, 1]: the usual definitions, and the paper's own under `paper_*`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from stylesim.core.errors import StylesimError


def retrieval_metrics(
    relevance: Bool[ArrayLike, "q r"], n_relevant: Int[ArrayLike, " q"], ks: Sequence[int]
) -> dict[str, float]:
    """Figures at each k, from the relevance of every query's neighbours, the nearest first.

    With P@j the share of hits among the first j neighbours, and means taken over all queries:

    - `recall@k`: share of queries with a hit among the first k.
    - `precision@k`: P@k.
    - `map@k`: (sum of P@j over the hits j <= k) / min(k, n_relevant); 0 for a query with nothing relevant.
    - `mrr@k`: 1 / rank of the first hit among the first k; 0 without one.
    - `paper_map@k`: (1/k) sum of P@j over *every* rank j <= k (CSD, section 5; so `paper_map@1` =
      `recall@1`).
    - `paper_mrr@k`: `mrr@k` averaged only over the queries that have a hit, as the published code does; 0 if
      none has.

    `n_relevant` counts the relevant items of the whole gallery, found or not. Fewer than k columns (a gallery
    smaller than k) are completed with misses, so a metric at k never looks better for a small gallery.
    Arrays and tensors on any device are accepted; sums are float64.

    Raises StylesimError for shapes that disagree, no queries, ks below 1, or more hits than relevant items.
    """
    return mean_metrics(query_metrics(relevance, n_relevant, ks))


def mean_metrics(per_query: Mapping[str, Float[np.ndarray, " q"]]) -> dict[str, float]:
    """Means over the queries that have a value; 0 where none has one."""
    counted = {name: values[~np.isnan(values)] for name, values in per_query.items()}
    return {name: float(values.mean()) if values.size else 0.0 for name, values in counted.items()}


def query_metrics(
    relevance: Bool[ArrayLike, "q r"], n_relevant: Int[ArrayLike, " q"], ks: Sequence[int]
) -> dict[str, Float[np.ndarray, " q"]]:
    """What `retrieval_metrics` averages: a float64 per query and metric.

    `paper_mrr@k` is NaN for a query without a hit among the first k, which that metric leaves out. Raises as
    `retrieval_metrics` does.
    """
    hits, counts = _host(relevance), _host(n_relevant)
    _check(hits, counts, ks)
    deepest = max(ks)
    hits = np.pad(hits[:, :deepest], ((0, 0), (0, max(0, deepest - hits.shape[1])))).astype(np.float64)
    ranks = np.arange(1, deepest + 1)
    precision = np.cumsum(hits, axis=1) / ranks
    precision_at_hits = np.cumsum(precision * hits, axis=1)
    precision_everywhere = np.cumsum(precision, axis=1)
    first_hit = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, np.inf)

    metrics: dict[str, np.ndarray] = {}
    for k in ks:
        found = first_hit <= k
        metrics |= {
            f"recall@{k}": found.astype(np.float64),
            f"precision@{k}": precision[:, k - 1].copy(),
            f"map@{k}": precision_at_hits[:, k - 1] / np.clip(counts, 1, k),
            f"mrr@{k}": np.where(found, 1 / first_hit, 0.0),
            f"paper_map@{k}": precision_everywhere[:, k - 1] / k,
            f"paper_mrr@{k}": np.where(found, 1 / first_hit, np.nan),
        }
    return metrics


def _host(values: ArrayLike) -> np.ndarray:
    """A numpy view of an array, a list or a tensor on any device, without importing torch."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)  # pyright: ignore[reportAttributeAccessIssue]


def _check(hits: np.ndarray, counts: np.ndarray, ks: Sequence[int]) -> None:
    if hits.ndim != 2 or hits.dtype != np.bool_:
        raise StylesimError(f"Relevance is a boolean table [queries ranks], not {hits.dtype} {list(hits.shape)}.")
    if counts.shape != hits.shape[:1] or counts.dtype.kind not in "iu":
        raise StylesimError(
            f"n_relevant is a whole number per query, {len(hits)} of them, not {counts.dtype} {counts.shape}."
        )
    if not len(hits):
        raise StylesimError("There is no query to score: the query set is empty.")
    if not ks or min(ks) < 1:
        raise StylesimError(f"ks are ranks of 1 or more, at least one of them, not {list(ks)}.")
    if (short := np.flatnonzero(hits.sum(axis=1) > counts)).size:
        raise StylesimError(
            f"Query {short[0]} has {hits[short[0]].sum()} hits but n_relevant says {counts[short[0]]}: "
            "n_relevant counts every relevant item of the gallery."
        )
