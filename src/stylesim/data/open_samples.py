"""Open the images of any locations: shards, folders of images, or tables of paths."""

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
    """The images of several roots, one root after the other; their number is known before they are read.

    Every process reads all of them, and each iteration reads them again.
    """

    parts: tuple[ShardSamples | list[Sample], ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __iter__(self) -> Iterator[Sample]:
        return chain.from_iterable(self.parts)


def open_samples(roots: Sequence[Root]) -> Samples:
    """Open roots as shards if they are remote or have an index, otherwise as folders or tables of image files.

    Raises:
        DataError: If a root is missing or empty.
    """

    def open_root(root: Root) -> ShardSamples | list[Sample]:
        if root.folder is None or (root.folder / INDEX).is_file():
            return ShardSamples((load_index(root),))
        return find_samples(root.location, root.name)

    return Samples(tuple(open_root(root) for root in roots))
