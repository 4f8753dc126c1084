"""Images to describe, from wherever a retrieval set names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from stylesim.data.folder import read_items
from stylesim.data.index import INDEX, load_index
from stylesim.data.roots import Root
from stylesim.data.shards import ShardItems
from stylesim.images import Item


@dataclass(frozen=True)
class Items:
    """The images of several roots, one after the other; read anew by each iteration, and counted beforehand.

    Every process reads the whole of it. Raises `StylesimError` for a root that is missing or empty.
    """

    parts: tuple[ShardItems | list[Item], ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __iter__(self) -> Iterator[Item]:
        return chain.from_iterable(self.parts)

    @property
    def damaged(self) -> list[tuple[str, str]]:
        """(id or shard, reason) of what the latest iteration could not read."""
        return [pair for part in self.parts if isinstance(part, ShardItems) for pair in part.damaged]


def open_items(roots: Sequence[Root]) -> Items:
    """Shards where there is an index (or a remote location), folders or tables of image files otherwise."""

    def opened(root: Root) -> ShardItems | list[Item]:
        if root.folder is None or (root.folder / INDEX).is_file():
            return ShardItems((load_index(root),))
        return read_items(root.location, root.name)

    return Items(tuple(opened(root) for root in roots))
