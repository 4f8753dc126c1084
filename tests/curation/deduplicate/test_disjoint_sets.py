"""Components of a stream of pairs are those of the whole graph."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stylesim.curation.deduplicate.disjoint_sets import DisjointSets


def by_flooding(n: int, edges: list[tuple[int, int]]) -> list[int]:
    """The least node that can be reached from each, by walking."""
    near = {node: {node} for node in range(n)}
    for a, b in edges:
        near[a].add(b)
        near[b].add(a)
    labels = []
    for node in range(n):
        seen, todo = {node}, [node]
        while todo:
            todo += (fresh := near[todo.pop()] - seen)
            seen |= fresh
        labels.append(min(seen))
    return labels


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29))), st.integers(1, 8))
def test_components_are_what_can_be_reached(n, edges, step):
    edges = [(a % n, b % n) for a, b in edges]
    components = DisjointSets(n)
    for start in range(0, len(edges), step):
        left, right = np.array(edges[start : start + step]).T
        components.join(left, right)
    assert components.labels().tolist() == by_flooding(n, edges)


def test_a_long_chain_is_one_component():
    """The worst order: every edge joins a component to a lesser node."""
    n = 20_000
    components = DisjointSets(n)
    components.join(np.arange(n - 1)[::-1], np.arange(1, n)[::-1])
    assert not components.labels().any()
    one_by_one = DisjointSets(300)
    for node in range(299, 0, -1):
        one_by_one.join(np.array([node]), np.array([node - 1]))
    assert not one_by_one.labels().any()
