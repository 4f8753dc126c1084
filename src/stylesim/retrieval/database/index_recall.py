"""Build an index, measure how many of the true nearest neighbours it finds, and choose how thoroughly to search it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from stylesim.retrieval.database.backends.backend import Backend
from stylesim.retrieval.database.columns import descriptor_matrix
from stylesim.retrieval.database.ranking import Ranked, rank_by_index, rank_by_scan, scan_candidates

RECALL_K = 10
SAMPLE = 200
"""Number of items of the database that are used as queries."""
TARGET = 0.95

logger = logging.getLogger(__name__)


def build_measured_index(backend: Backend, rows: int) -> dict[str, Any]:
    """Build the index of a database, measure its recall, and return what is known about it.

    Args:
        backend: The database.
        rows: Number of items.
    """
    backend.write_index_info(None)  # searches are exact until the index has been measured
    info = measure_index(backend, backend.build_index(), rows)
    backend.write_index_info(info)
    recall = info[f"recall@{RECALL_K}"]
    logger.info("Indexed %s items (%s): recall@%d %.3f.", f"{rows:,}", info["kind"], RECALL_K, recall)
    return info


def measure_index(backend: Backend, index: dict[str, Any], rows: int) -> dict[str, Any]:
    """Choose the lowest effort that finds TARGET of the true neighbours, and return what to keep about the index.

    A sample of the items is searched exactly and with the index; none of them finds itself.

    Args:
        backend: The database.
        index: As `Backend.build_index` describes it.
        rows: Number of items that were indexed.
    """
    stored = sample_items(backend, SAMPLE, 0, ["id", "descriptor"])
    queries, own = descriptor_matrix(stored).copy(), stored["id"].to_pylist()
    truth = rank_by_scan(scan_candidates(backend, None), queries, RECALL_K, own)
    effort, reached = 0, 0.0
    for effort in index["efforts"]:
        reached = recall(rank_by_index(backend, queries, RECALL_K, None, own, effort), truth)
        if reached >= TARGET:
            break
    facts = {key: value for key, value in index.items() if key != "efforts"}
    return {**facts, "rows": rows, "effort": effort, f"recall@{RECALL_K}": round(reached, 4), "queries": len(own)}


def sample_items(backend: Backend, count: int, seed: int, columns: Sequence[str]) -> pa.Table:
    """Return columns of `count` random items, or of all if there are fewer, ordered by id."""
    ids = sorted(id for piece in backend.scan(["id"]) for id in piece["id"].to_pylist())
    chosen = np.random.default_rng(seed).permutation(len(ids))[:count]
    return backend.fetch([ids[row] for row in chosen], columns).sort_by("id")


def recall(found: Sequence[Ranked], exact: Sequence[Ranked]) -> float:
    """Return the share of true neighbours that were found, in [0, 1].

    Similarities are compared rather than ids: of two equal images either is right.
    """
    hits = sum(
        sum(similarity >= truth[-1][0] for similarity, _ in ranked)
        for ranked, truth in zip(found, exact, strict=True)
        if truth
    )
    return hits / max(1, sum(map(len, exact)))
