"""Find connected components of pairs that arrive in batches, in memory that grows only with the number of nodes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int


class DisjointSets:
    """The connected components of `n` nodes: a union-find forest in which each root is the smallest node of its tree.

    scipy's `connected_components` needs all pairs in memory at once, and there may be far more pairs than nodes.
    """

    def __init__(self, n: int) -> None:
        self.parents: Int[np.ndarray, " n"] = np.arange(n)

    def join(self, left: Int[np.ndarray, " p"], right: Int[np.ndarray, " p"]) -> None:
        """Add an edge between each node of `left` and the node of `right` at the same position.

        Each round attaches every root to the smallest root that it shares an edge with, until both ends of each edge
        are in the same tree.
        """
        while len(left):
            left, right = self._roots(left), self._roots(right)
            apart = left != right
            left, right = np.minimum(left[apart], right[apart]), np.maximum(left[apart], right[apart])
            np.minimum.at(self.parents, right, left)

    def labels(self) -> Int[np.ndarray, " n"]:
        """Return the smallest node of each node's component."""
        return self._roots(np.arange(len(self.parents)))

    def _roots(self, nodes: Int[np.ndarray, " p"]) -> Int[np.ndarray, " p"]:
        roots = self.parents[nodes]
        while not np.array_equal(above := self.parents[roots], roots):
            roots = above
        self.parents[nodes] = roots  # path compression, so that long chains are followed only once
        return roots
