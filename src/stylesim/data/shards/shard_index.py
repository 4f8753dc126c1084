"""Read the index of shards, and the samples that it lists."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stylesim.core.errors import StylesimError
from stylesim.core.progress import progress
from stylesim.data.roots import Root, opened
from stylesim.data.sample import Sample
from stylesim.data.shards.tar_reader import read_shard

INDEX = "index.json"
SHARD = re.compile(r"[\w+=,-][\w.+=,-]*\.tar(\.gz)?")  # a plain name: an index from elsewhere cannot point outside


@dataclass(frozen=True)
class Shard:
    """One shard as its index describes it."""

    name: str
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """What `index.json` says about a root."""

    root: Root
    shards: tuple[Shard, ...]
    tags: dict[str, int]

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def counts(self) -> tuple[int, ...]:
        """Samples of each shard."""
        return tuple(shard.count for shard in self.shards)

    def __str__(self) -> str:
        return f"{self.count:,} images with {len(self.tags):,} tags in {len(self.shards)} shards"

    def read(self, number: int, places: Sequence[int]) -> Iterator[Sample]:
        """The samples at these places of shard `number`, as `read_shard` gives them."""
        shard = self.shards[number]
        return read_shard(self.root.url(shard.name), f"{self.root.name}/{stem(shard.name)}", places)


def stem(shard: str) -> str:
    """The name of a shard without `.tar` or `.tar.gz`."""
    return shard.removesuffix(".gz").removesuffix(".tar")


def load_index(root: Root) -> Index:
    """Read the `index.json` of a root and compare it with the files of a local one, by name and size.

    Raises `StylesimError` if the root or its index is missing or empty, or if the two disagree.
    """
    if root.folder is not None:
        if not root.folder.is_dir():
            raise StylesimError(f"there is no folder {root.folder.absolute()}: set data.root to a folder of shards")
        if not (root.folder / INDEX).is_file():
            found = "is empty" if not shard_files(root.folder) else f"holds shards, but no {INDEX}"
            raise StylesimError(
                f"{root.folder} {found}: put shards (.tar, .tar.gz) there and run "
                f"`python -m stylesim.index folder={root.folder}`"
            )
    try:
        with opened(root.url(INDEX)) as stream:
            raw = json.loads(stream.read())
        shards = tuple(Shard(s["name"], int(s["count"]), int(s["bytes"]), s["sha256"]) for s in raw["shards"])
        index = Index(root, shards, {str(tag): int(count) for tag, count in raw["tags"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StylesimError(
            f"{root.url(INDEX)} cannot be read ({type(error).__name__}: {error}): check the address, or make "
            f"the index with `python -m stylesim.index folder=FOLDER` where the shards lie"
        ) from error
    if not index.count:
        raise StylesimError(f"{root.location} is empty: its {INDEX} lists no image")
    for shard in index.shards:
        if not SHARD.fullmatch(shard.name) or shard.count < 0:
            raise StylesimError(
                f"{root.url(INDEX)} lists {shard.name!r} with {shard.count} images: no shard is like that"
            )
    if root.folder is not None:
        _compare(index, root.folder)
    return index


def _compare(index: Index, folder: Path) -> None:
    """Refuse an index that disagrees with the files beside it."""
    found = {path.name: path.stat().st_size for path in shard_files(folder)}
    listed = {shard.name: shard.bytes for shard in index.shards}
    wrong = [f"{name} is missing" for name in sorted(listed.keys() - found.keys())]
    wrong += [f"{name} is not listed" for name in sorted(found.keys() - listed.keys())]
    wrong += [
        f"{name} has {found[name]:,} bytes instead of {listed[name]:,}"
        for name in sorted(listed.keys() & found.keys())
        if found[name] != listed[name]
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise StylesimError(
            f"{folder / INDEX} disagrees with the files beside it: {'; '.join(wrong[:3])}{more}. "
            f"Restore them, or run `python -m stylesim.index folder={folder}` again"
        )


def shard_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if SHARD.fullmatch(path.name) and path.is_file())


def verify_digests(index: Index, *, show: bool = True) -> None:
    """Read the shards of a local root through and compare their SHA-256 with the index.

    Raises `StylesimError` naming the first one that differs.
    """
    with progress("verifying", len(index.shards), unit="shards", show=show) as advance:
        for shard in index.shards:
            with Path(index.root.url(shard.name)).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                    raise StylesimError(
                        f"{index.root.url(shard.name)} is not the file that was indexed: its SHA-256 differs"
                    )
            advance(1)
