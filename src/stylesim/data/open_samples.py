"""Images to describe, from wherever a retrieval set names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from stylesim.data.datasets.folder import find_samples
from stylesim.data.roots import Root
from stylesim.data.sample import Sample
from stylesim.data.shards.shard_index import INDEX, load_index
from stylesim.data.shards.shard_samples import ShardSamples


@dataclass(frozen=True)
class Samples:
    """The images of several roots, one after the other; read anew by each iteration, and counted beforehand.

    Every process reads the whole of it. Raises `StylesimError` for a root that is missing or empty.
    """

    parts: tuple[ShardSamples | list[Sample], ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __iter__(self) -> Iterator[Sample]:
        return chain.from_iterable(self.parts)


def open_samples(roots: Sequence[Root]) -> Samples:
    """Shards where there is an index (or a remote location), folders or tables of image files otherwise."""

    def opened(root: Root) -> ShardSamples | list[Sample]:
        if root.folder is None or (root.folder / INDEX).is_file():
            return ShardSamples((load_index(root),))
        return find_samples(root.location, root.name)

    return Samples(tuple(opened(root) for root in roots))
