"""Retrieval metrics as fractions in [0, 1]: the usual definitions, and those of the CSD paper as `paper_*`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from stylesim.core.errors import ConfigError, DataError


def retrieval_metrics(
    relevance: Bool[ArrayLike, "q r"], n_relevant: Int[ArrayLike, " q"], ks: Sequence[int]
) -> dict[str, float]:
    """Compute metrics at each k from the relevance of every query's neighbours.

    With P@j the share of relevant items among the first j neighbours, and means over all queries:

    - `recall@k`: share of queries with a relevant item among the first k.
    - `precision@k`: P@k.
    - `map@k`: (sum of P@j over the relevant ranks j <= k) / min(k, n_relevant); 0 if nothing is relevant.
    - `mrr@k`: 1 / rank of the first relevant item if it is among the first k, else 0.
    - `paper_map@k`: (1/k) sum of P@j over *every* rank j <= k (CSD, section 5), so `paper_map@1` = `recall@1`.
    - `paper_mrr@k`: `mrr@k` averaged only over the queries with a relevant item among the first k, as in the
      published code; 0 if there is none.

    Args:
        relevance: Whether the j-th nearest neighbour of each query is relevant. Fewer than k columns (a gallery
            smaller than k) are filled with misses, so a small gallery never improves a metric. Arrays, lists and
            tensors on any device are accepted.
        n_relevant: The number of relevant items in the whole gallery, whether they were found or not.
        ks: Ranks of 1 or more.

    Returns:
        The metrics by name, such as "map@10". Sums are in float64.

    Raises:
        DataError: If shapes do not match, there are no queries, or a query has more hits than relevant items.
        ConfigError: If `ks` is empty or contains a rank below 1.
    """
    return mean_metrics(query_metrics(relevance, n_relevant, ks))


def mean_metrics(per_query: Mapping[str, Float[np.ndarray, " q"]]) -> dict[str, float]:
    """Average each metric over the queries whose value is not NaN.

    Args:
        per_query: The values of each metric, as from `query_metrics`.

    Returns:
        The means by the name of the metric; 0 if all values are NaN.
    """
    counted = {name: values[~np.isnan(values)] for name, values in per_query.items()}
    return {name: float(values.mean()) if values.size else 0.0 for name, values in counted.items()}


def query_metrics(
    relevance: Bool[ArrayLike, "q r"], n_relevant: Int[ArrayLike, " q"], ks: Sequence[int]
) -> dict[str, Float[np.ndarray, " q"]]:
    """Compute the values that `retrieval_metrics` averages.

    Args:
        relevance: As for `retrieval_metrics`.
        n_relevant: As for `retrieval_metrics`.
        ks: As for `retrieval_metrics`.

    Returns:
        One float64 per query, by the name of the metric. `paper_mrr@k` is NaN for a query without a relevant item among
        the first k, because that metric leaves such queries out.

    Raises:
        DataError, ConfigError: As for `retrieval_metrics`.
    """
    hits, counts = _as_numpy(relevance), _as_numpy(n_relevant)
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
        has_hit = first_hit <= k
        metrics |= {
            f"recall@{k}": has_hit.astype(np.float64),
            f"precision@{k}": precision[:, k - 1].copy(),
            f"map@{k}": precision_at_hits[:, k - 1] / np.clip(counts, 1, k),
            f"mrr@{k}": np.where(has_hit, 1 / first_hit, 0.0),
            f"paper_map@{k}": precision_everywhere[:, k - 1] / k,
            f"paper_mrr@{k}": np.where(has_hit, 1 / first_hit, np.nan),
        }
    return metrics


def _as_numpy(values: ArrayLike) -> np.ndarray:
    """Convert an array, a list or a tensor on any device, without importing torch."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)  # pyright: ignore[reportAttributeAccessIssue]


def _check(hits: np.ndarray, counts: np.ndarray, ks: Sequence[int]) -> None:
    if hits.ndim != 2 or hits.dtype != np.bool_:
        raise DataError(f"relevance must be a boolean array [queries ranks], got {hits.dtype} {list(hits.shape)}.")
    if counts.shape != hits.shape[:1] or counts.dtype.kind not in "iu":
        raise DataError(
            f"n_relevant must hold one integer for each of {len(hits)} queries, got {counts.dtype}"
            f" {list(counts.shape)}."
        )
    if not len(hits):
        raise DataError("The query set is empty, so there is nothing to evaluate.")
    if not ks or min(ks) < 1:
        raise ConfigError(f"ks must be one or more ranks of at least 1, got {list(ks)}.")
    if (wrong := np.flatnonzero(hits.sum(axis=1) > counts)).size:
        raise DataError(
            f"Query {wrong[0]} has {hits[wrong[0]].sum()} hits but n_relevant says {counts[wrong[0]]}: "
            "n_relevant must count every relevant item of the gallery."
        )
