"""What a retrieval evaluation asks. Importing it loads neither torch nor pandas."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class RetrievalSpec:
    """Which images query which, and when a neighbour is right.

    `query`, `gallery`: shard roots or image folders; without a gallery the queries are their own, each left
    out by its id. `relevant` names what makes a neighbour right, and `distinct` what a neighbour must *not*
    share with the query to be considered at all: "content" or "source", or a glob over tags ("set:*"); one
    shared value is enough. `greyscale`: describe the images without colour. `every_n_steps`: how often a
    training run asks (None: only at its end). `limit`: at most that many queries, a fixed sample: the first
    by the SHA-1 of their ids. `groups`: groups of tags ("medium" for "medium:oil") that the same neighbours are
    scored by as well, a shared tag of the group being right: metrics `medium_recall@1` and so on.
    """

    query: Sequence[str]
    gallery: Sequence[str] | None = None
    relevant: str = "*"
    distinct: str | None = None
    greyscale: bool = False
    ks: Sequence[int] = (1, 10, 100)
    every_n_steps: int | None = None
    limit: int | None = None
    groups: Sequence[str] = ()

    def swapped(self) -> RetrievalSpec:
        """The control: same content in another style, where this one asks for same style in another content.

        A descriptor of style should score low here. Without a `distinct` of its own, "content" is what is
        asked for.
        """
        return replace(self, relevant=self.distinct or "content", distinct=self.relevant, groups=())

    def sample(self, ids: Sequence[str]) -> list[int]:
        """Positions of the queries asked, ascending: all, or `limit` of them."""
        if self.limit is None or len(ids) <= self.limit:
            return list(range(len(ids)))
        by_hash = sorted(range(len(ids)), key=lambda i: hashlib.sha1(ids[i].encode()).digest())
        return sorted(by_hash[: self.limit])
