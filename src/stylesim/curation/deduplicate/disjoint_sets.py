"""Connected components of pairs that arrive a few at a time, in memory that grows with the nodes alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int


class Components:
    """Which of `n` nodes hang together: a union-find forest whose roots are the least node of their component."""

    def __init__(self, n: int) -> None:
        self.parents: Int[np.ndarray, " n"] = np.arange(n)

    def join(self, left: Int[np.ndarray, " p"], right: Int[np.ndarray, " p"]) -> None:
        """Take edges. Each round hangs a root below the least root that it has an edge to, until no edge is left."""
        while len(left):
            left, right = self._roots(left), self._roots(right)
            apart = left != right
            left, right = np.minimum(left[apart], right[apart]), np.maximum(left[apart], right[apart])
            np.minimum.at(self.parents, right, left)

    def labels(self) -> Int[np.ndarray, " n"]:
        """The least node of each node's component."""
        return self._roots(np.arange(len(self.parents)))

    def _roots(self, nodes: Int[np.ndarray, " p"]) -> Int[np.ndarray, " p"]:
        roots = self.parents[nodes]
        while (above := self.parents[roots]).tobytes() != roots.tobytes():
            roots = above
        self.parents[nodes] = roots  # or long chains would be walked again and again
        return roots
