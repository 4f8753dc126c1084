"""RetrievalSpec: what one retrieval evaluation compares. Importing it loads neither torch nor pandas."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class RetrievalSpec:
    """Which images query which gallery, and which neighbours are relevant.

    A selector is "content", "source", or a glob over tags such as "artist:*". Two images match if they have a value
    of the selector in common.

    Args:
        query: Roots of the queries: shards, image folders or tables of images.
        gallery: Roots of the gallery. None searches the queries themselves, each without its own id.
        relevant: Selector: a neighbour is relevant if it matches the query.
        distinct: Selector: gallery images that match the query are excluded from its results. None excludes nothing.
        greyscale: Embed the images without their colour.
        recoloured: Embed the images in random colours, drawn from the key of each image.
        ks: Ranks at which metrics are computed.
        every_n_steps: How often a training run evaluates this set, in steps. None: only at the end.
        limit: The largest number of queries. If there are more, those whose ids have the smallest SHA-1 are used, a
            sample that does not change between runs.
        groups: Groups of tags, such as "medium" for "medium:oil", by which the same neighbours are also evaluated: a
            neighbour is relevant if it shares a tag of the group. This adds metrics such as `medium_recall@1`.
    """

    query: Sequence[str]
    gallery: Sequence[str] | None = None
    relevant: str = "*"
    distinct: str | None = None
    greyscale: bool = False
    recoloured: bool = False
    ks: Sequence[int] = (1, 10, 100)
    every_n_steps: int | None = None
    limit: int | None = None
    groups: Sequence[str] = ()

    def swapped(self) -> RetrievalSpec:
        """Return the spec of the content score: relevant is the same content in another style.

        It is a control, on which a style descriptor should score low. Without `distinct`, the relevant selector becomes
        "content".
        """
        return replace(self, relevant=self.distinct or "content", distinct=self.relevant, groups=())

    def query_rows(self, ids: Sequence[str]) -> list[int]:
        """Return the positions of the queries to use, in ascending order: all of them, or `limit`."""
        if self.limit is None or len(ids) <= self.limit:
            return list(range(len(ids)))
        by_hash = sorted(range(len(ids)), key=lambda i: hashlib.sha1(ids[i].encode()).digest())
        return sorted(by_hash[: self.limit])
