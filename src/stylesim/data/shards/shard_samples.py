"""Read every sample of shards in the order of their indices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from stylesim.data.roots import name_roots
from stylesim.data.sample import Sample
from stylesim.data.shards.shard_index import Index, load_index


def read_shards(
    roots: str | Path | Sequence[str | Path], rank: int = 0, world: int = 1, *, images: bool = True
) -> ShardSamples:
    """Open one or several roots of shards for reading from the first sample to the last.

    Args:
        roots: Folders, http(s) prefixes or `pipe:` commands.
        rank: Only the samples `rank`, `rank + world`, ... are read.
        world: See `rank`.
        images: Whether to return the images; otherwise only the labels are read.

    Raises:
        DataError: As `load_index` does.
    """
    locations = [roots] if isinstance(roots, str | Path) else roots
    return ShardSamples(tuple(load_index(root) for root in name_roots(locations)), rank, world, images)


@dataclass(frozen=True)
class ShardSamples:
    """The samples of shards, in order; each iteration reads them again. Unreadable ones have a `problem`."""

    indices: tuple[Index, ...]
    rank: int = 0
    world: int = 1
    images: bool = True

    def __len__(self) -> int:
        return len(range(self.rank, sum(index.count for index in self.indices), self.world))

    def __iter__(self) -> Iterator[Sample]:
        position = 0
        for index in self.indices:
            for number, shard in enumerate(index.shards):
                samples = index.read(number, range(shard.count))
                for sample in islice(samples, (self.rank - position) % self.world, None, self.world):
                    yield sample if self.images else sample._replace(image=None)
                position += shard.count
