from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylesim.core.errors import StylesimError
from stylesim.evaluation.metrics import mean_metrics, query_metrics, retrieval_metrics


def by_loops(relevance: list[list[bool]], n_relevant: list[int], k: int) -> dict[str, float]:
    """Compute the definitions with loops over queries and ranks."""
    names = ("recall", "precision", "map", "mrr", "paper_map")
    sums, reciprocal_of_hit = dict.fromkeys(names, 0.0), []
    for hits, total in zip(relevance, n_relevant, strict=True):
        seen, at_hits, everywhere, first = 0, 0.0, 0.0, None
        for rank in range(1, k + 1):
            hit = rank <= len(hits) and hits[rank - 1]
            seen += hit
            everywhere += seen / rank
            at_hits += seen / rank if hit else 0
            first = rank if hit and first is None else first
        sums["recall"] += first is not None
        sums["precision"] += seen / k
        sums["map"] += at_hits / min(k, total) if total else 0
        sums["mrr"] += 1 / first if first else 0
        sums["paper_map"] += everywhere / k
        reciprocal_of_hit += [1 / first] if first else []
    metrics = {f"{name}@{k}": value / len(relevance) for name, value in sums.items()}
    return metrics | {f"paper_mrr@{k}": sum(reciprocal_of_hit) / max(1, len(reciprocal_of_hit))}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[bool]], list[int]]:
    q, r = draw(st.integers(1, 6)), draw(st.integers(0, 12))
    rows = draw(st.lists(st.lists(st.booleans(), min_size=r, max_size=r), min_size=q, max_size=q))
    return rows, [sum(row) + draw(st.integers(0, 5)) for row in rows]


def test_a_case_computed_by_hand():
    relevance = np.array([[True, False, True, False], [False, True, False, False], [False] * 4])
    metrics = retrieval_metrics(relevance, np.array([2, 5, 0]), ks=(1, 4))

    assert metrics["recall@1"] == pytest.approx(1 / 3)
    assert metrics["recall@4"] == pytest.approx(2 / 3)
    assert metrics["precision@4"] == pytest.approx((2 / 4 + 1 / 4) / 3)
    # Precision at the hits: 1, 2/3 over min(4, 2); 1/2 over min(4, 5); nothing.
    assert metrics["map@4"] == pytest.approx(((1 + 2 / 3) / 2 + (1 / 2) / 4 + 0) / 3)
    assert metrics["mrr@4"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    # Precision at every rank: 1, 1/2, 2/3, 1/2 and 0, 1/2, 1/3, 1/4.
    assert metrics["paper_map@4"] == pytest.approx(((1 + 1 / 2 + 2 / 3 + 1 / 2) / 4 + (1 / 2 + 1 / 3 + 1 / 4) / 4) / 3)
    assert metrics["paper_mrr@4"] == pytest.approx((1 + 1 / 2) / 2)
    assert metrics["paper_map@1"] == metrics["recall@1"] == metrics["map@1"]


@given(tables(), st.integers(1, 15))
def test_metrics_match_the_definitions_written_as_loops(table, k):
    relevance, n_relevant = table
    hits = np.array(relevance, dtype=bool).reshape(len(relevance), -1)
    assert retrieval_metrics(hits, np.array(n_relevant), [k]) == pytest.approx(by_loops(relevance, n_relevant, k))


@given(tables(), st.integers(1, 15))
def test_metrics_of_a_set_are_means_over_its_queries(table, k):
    hits, counts = np.array(table[0], dtype=bool).reshape(len(table[0]), -1), np.array(table[1])
    per_query = query_metrics(hits, counts, [1, k])

    assert mean_metrics(per_query) == retrieval_metrics(hits, counts, [1, k])
    for number, values in enumerate(zip(*per_query.values(), strict=True)):
        alone = retrieval_metrics(hits[[number]], counts[[number]], [1, k])
        assert np.nan_to_num(values).tolist() == list(alone.values())
    hit = hits[:, :k].any(axis=1)
    assert (np.isnan(per_query[f"paper_mrr@{k}"]) == ~hit).all()


@given(tables(), st.integers(1, 15))
def test_the_usual_metrics_match_torchmetrics(table, k):
    """Except for MAP: torchmetrics divides average precision at k by the hits, stylesim by min(k, n_relevant)."""
    from torchmetrics.functional.retrieval import (
        retrieval_average_precision,
        retrieval_hit_rate,
        retrieval_precision,
        retrieval_reciprocal_rank,
    )

    rows = [row for row in table[0] if row] or [[False]]
    width = len(rows[0])
    per_query = query_metrics(np.array(rows, dtype=bool), np.array([sum(row) for row in rows]), [k, width])
    nearness = torch.arange(width, 0, -1).float()
    for number, row in enumerate(rows):
        target = torch.tensor(row)
        top = min(k, width)  # some versions of torchmetrics clip k to the number of candidates
        assert per_query[f"recall@{k}"][number] == retrieval_hit_rate(nearness, target, top_k=top)
        assert per_query[f"mrr@{k}"][number] == pytest.approx(
            float(retrieval_reciprocal_rank(nearness, target, top_k=top))
        )
        assert per_query[f"precision@{k}"][number] == pytest.approx(
            float(retrieval_precision(nearness, target, top_k=k))
        )
        # For a complete ranking all definitions of average precision agree.
        whole = float(retrieval_average_precision(nearness, target))
        assert per_query[f"map@{width}"][number] == pytest.approx(whole, abs=1e-6)


@given(tables(), st.integers(1, 12))
def test_the_papers_metrics_match_its_formula(table, k):
    """mAP@k = (1/Q) sum_q (1/k) sum_{j<=k} P_q@j; MRR over the queries with a hit (CSD, section 5)."""
    hits = np.array(table[0], dtype=bool).reshape(len(table[0]), -1)
    hits = np.pad(hits, ((0, 0), (0, 12)))[:, :k]
    metrics = retrieval_metrics(hits, hits.sum(axis=1), [k])
    precision = hits @ np.triu(np.ones((k, k))) / np.arange(1, k + 1)
    assert metrics[f"paper_map@{k}"] == pytest.approx(precision.mean())
    first = [row.tolist().index(True) + 1 for row in hits if row.any()]
    assert metrics[f"paper_mrr@{k}"] == pytest.approx(np.mean(1 / np.array(first)) if first else 0)


@given(tables(), st.integers(1, 15))
def test_metrics_are_fractions_and_do_not_depend_on_the_order_of_the_queries(table, k):
    hits, counts = np.array(table[0], dtype=bool).reshape(len(table[0]), -1), np.array(table[1])
    metrics = retrieval_metrics(hits, counts, [1, k])

    assert all(0 <= value <= 1 for value in metrics.values())
    assert metrics["recall@1"] <= metrics[f"recall@{k}"]
    assert metrics[f"mrr@{k}"] <= metrics[f"recall@{k}"]
    assert retrieval_metrics(hits[::-1], counts[::-1], [1, k]) == pytest.approx(metrics)


def test_a_perfect_ranking_scores_one_and_no_hit_scores_zero():
    perfect = np.array([[True, True, False, False], [True, False, False, False]])
    metrics = retrieval_metrics(perfect, np.array([2, 1]), [4])
    assert metrics["map@4"] == metrics["mrr@4"] == metrics["recall@4"] == 1
    assert metrics["paper_map@4"] < 1  # the paper's mAP penalises small classes
    assert set(retrieval_metrics(~perfect & False, np.array([2, 1]), [4]).values()) == {0.0}


def test_a_gallery_smaller_than_k_counts_the_missing_ranks_as_misses():
    metrics = retrieval_metrics(np.array([[True]]), np.array([1]), [4])
    assert metrics["precision@4"] == 1 / 4
    assert metrics["map@4"] == 1


def test_tensors_are_accepted():
    table = torch.tensor([[True, False]])
    assert retrieval_metrics(table, torch.tensor([1]), [2]) == retrieval_metrics(table.numpy(), np.array([1]), [2])


@pytest.mark.parametrize(
    ("relevance", "n_relevant", "ks", "message"),
    [
        (np.ones((2, 3)), [3, 3], [1], "boolean array"),
        (np.ones(3, dtype=bool), [3], [1], "boolean array"),
        (np.ones((2, 3), dtype=bool), [3], [1], "each of 2 queries"),
        (np.ones((1, 3), dtype=bool), [3.0], [1], "one integer"),
        (np.ones((0, 3), dtype=bool), np.empty(0, dtype=int), [1], "empty"),
        (np.ones((1, 3), dtype=bool), [3], [0], "ranks of at least 1"),
        (np.ones((1, 3), dtype=bool), [3], [], "one or more ranks"),
        (np.ones((1, 3), dtype=bool), [2], [1], "3 hits but n_relevant says 2"),
    ],
)
def test_invalid_arguments_are_refused(relevance, n_relevant, ks, message):
    with pytest.raises(StylesimError, match=message):
        retrieval_metrics(relevance, n_relevant, ks)
