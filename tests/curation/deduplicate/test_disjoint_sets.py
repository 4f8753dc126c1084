"""The components of batches of pairs are those of the whole graph."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stylesim.curation.deduplicate.disjoint_sets import DisjointSets


def least_reachable(n: int, edges: list[tuple[int, int]]) -> list[int]:
    """Return the least node that can be reached from each node, by searching."""
    neighbours = {node: {node} for node in range(n)}
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    labels = []
    for node in range(n):
        seen, todo = {node}, [node]
        while todo:
            todo += (fresh := neighbours[todo.pop()] - seen)
            seen |= fresh
        labels.append(min(seen))
    return labels


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29))), st.integers(1, 8))
def test_components_equal_a_graph_search(n, edges, step):
    edges = [(a % n, b % n) for a, b in edges]
    sets = DisjointSets(n)
    for start in range(0, len(edges), step):
        left, right = np.array(edges[start : start + step]).T
        sets.join(left, right)
    assert sets.labels().tolist() == least_reachable(n, edges)


def test_a_long_chain_is_one_component():
    """In the worst order, every edge joins a component to a smaller node."""
    n = 20_000
    sets = DisjointSets(n)
    sets.join(np.arange(n - 1)[::-1], np.arange(1, n)[::-1])
    assert not sets.labels().any()
    one_by_one = DisjointSets(300)
    for node in range(299, 0, -1):
        one_by_one.join(np.array([node]), np.array([node - 1]))
    assert not one_by_one.labels().any()
