"""Read the index of shards, and the samples that it lists."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from stylesim.core.errors import DataError
from stylesim.core.file_names import printable
from stylesim.core.files import sha256_of_file
from stylesim.core.image_folders import is_visible
from stylesim.core.log_once import log_once
from stylesim.core.progress import progress
from stylesim.data.labels import clean_label
from stylesim.data.roots import Root, open_url
from stylesim.data.sample import Sample
from stylesim.data.shards.tar_reader import read_positions

INDEX = "index.json"
SHARD = re.compile(r"[\w+=,-][\w.+=,-]*\.tar(\.gz)?")
"""A plain file name, so that an index from elsewhere cannot point outside its folder."""
_LIKE_SHARD = re.compile(r"\.(tar|tgz)\b", re.IGNORECASE)
BLOCK = 512
"""Bytes of a block of a tar; every member begins at a multiple of it."""


@dataclass(frozen=True)
class Shard:
    """One shard as its index describes it."""

    name: str
    count: int
    bytes: int
    sha256: str
    starts: str = ""
    """Where its samples begin, in blocks of 512 bytes: the difference from the previous one, separated by blanks.

    Empty for a compressed shard, and in an index that an earlier version wrote: such a shard is read from its start.
    """

    def offsets(self) -> Int[np.ndarray, " n"]:
        """Return the byte offsets at which the first n samples of the shard begin.

        Raises:
            DataError: If `starts` holds anything but numbers.
        """
        try:
            return np.cumsum(np.array(self.starts.split(), dtype=np.int64)) * BLOCK
        except (ValueError, OverflowError) as error:
            raise DataError(
                f"The index does not say where the samples of {self.name} begin ({error}): make it again with"
                " `stylesim index folder=FOLDER`."
            ) from error


@dataclass(frozen=True)
class Index:
    """The `index.json` of a root."""

    root: Root
    shards: tuple[Shard, ...]
    tags: dict[str, int]
    """Number of images with each tag."""

    @property
    def count(self) -> int:
        """Number of samples in all shards."""
        return sum(self.counts)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of samples in each shard."""
        return tuple(shard.count for shard in self.shards)

    def __str__(self) -> str:
        return f"{self.count:,} images with {len(self.tags):,} tags in {len(self.shards)} shards"

    def read(self, number: int, positions: Sequence[int]) -> Iterator[Sample]:
        """Yield the samples at these ascending positions of shard `number`, as `read_positions` does."""
        shard = self.shards[number]
        offsets = shard.offsets().tolist() if self.root.folder is not None else ()
        return read_positions(self.root.url(shard.name), f"{self.root.name}/{stem(shard.name)}", positions, offsets)


def stem(shard: str) -> str:
    """Return the name of a shard without `.tar` or `.tar.gz`."""
    return shard.removesuffix(".gz").removesuffix(".tar")


def load_index(root: Root) -> Index:
    """Read the `index.json` of a root; that of a local folder is compared with its files, by name and size.

    Raises:
        DataError: If the root or its index is missing or empty, or if index and files disagree.
    """
    if root.folder is not None:
        if not root.folder.is_dir():
            raise DataError(f"There is no folder {root.folder.absolute()}: set data.root to a folder of shards.")
        if not (root.folder / INDEX).is_file():
            command = f"`stylesim index folder={root.folder}`"
            if shard_files(root.folder):
                raise DataError(f"{root.folder} holds shards, but no {INDEX}: run {command}.")
            found = "holds no shard" if any(root.folder.iterdir()) else "is empty"
            raise DataError(
                f"{root.folder} {found}: put shards (.tar, .tar.gz) there and run {command}."
                f"{describe_misnamed(root.folder)}"
            )
    try:
        with open_url(root.url(INDEX)) as stream:
            raw = json.loads(stream.read())
        shards = tuple(
            Shard(s["name"], int(s["count"]), int(s["bytes"]), s["sha256"], str(s.get("starts", "")))
            for s in raw["shards"]
        )
        tags: Counter[str] = Counter()
        for tag, count in raw["tags"].items():
            tags[clean_label(str(tag))] += int(count)  # as `as_sample` reads it; an earlier version did not
        tags.pop("", None)
        index = Index(root, shards, dict(tags))
        problems = [str(problem) for problem in raw.get("problems", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{root.url(INDEX)} cannot be read ({type(error).__name__}: {error}): check the address, or make "
            f"the index with `stylesim index folder=FOLDER` where the shards are."
        ) from error
    if not index.count:
        broken = f"{'; '.join(problems[:5])}." if problems else "Index it again to see what is broken."
        raise DataError(
            f"{root.location} has no image: its {INDEX} lists {len(index.shards)} shards in which none was found."
            f" {broken}"
        )
    for shard in index.shards:
        if not SHARD.fullmatch(shard.name) or shard.count < 0:
            raise DataError(
                f"{root.url(INDEX)} lists a shard {shard.name!r} with {shard.count} images: expected a file name that"
                " ends in .tar or .tar.gz, and a count of at least 0."
            )
    if root.folder is not None:
        _compare(index, root.folder)
    return index


def _compare(index: Index, folder: Path) -> None:
    """Raise DataError if an index disagrees with the files beside it."""
    found = {path.name: path.stat().st_size for path in shard_files(folder)}
    listed = {shard.name: shard.bytes for shard in index.shards}
    differences = [f"{name} is missing" for name in sorted(listed.keys() - found.keys())]
    differences += [f"{name} is not listed" for name in sorted(found.keys() - listed.keys())]
    differences += [
        f"{name} has {found[name]:,} bytes instead of {listed[name]:,}"
        for name in sorted(listed.keys() & found.keys())
        if found[name] != listed[name]
    ]
    if differences:
        more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise DataError(
            f"{folder / INDEX} disagrees with the files beside it: {'; '.join(differences[:3])}{more}. "
            f"Restore them, or run `stylesim index folder={folder}` again."
        )


def shard_files(folder: Path) -> list[Path]:
    """List the shards of a folder, ordered by name. A warning names files that only look like shards."""
    if message := describe_misnamed(folder):
        log_once(logging.WARNING, f"{printable(folder)}:{message}")
    return sorted(path for path in folder.iterdir() if SHARD.fullmatch(path.name) and path.is_file())


def describe_misnamed(folder: Path) -> str:
    """Return a sentence about tars that are not read because of their names (`00001 (1).tar`); "" if there are none."""
    names = sorted(
        printable(file.name)
        for file in (folder.iterdir() if folder.is_dir() else ())
        if _LIKE_SHARD.search(file.name) and not SHARD.fullmatch(file.name) and is_visible(file.name) and file.is_file()
    )
    if not names:
        return ""
    more = ", ..." if len(names) > 5 else ""
    return (
        f" {len(names):,} files look like shards and are not read because of their names"
        f" ({', '.join(names[:5])}{more}): rename them to letters, digits and any of _ - + = , . that end in .tar or"
        " .tar.gz, or remove them."
    )


def verify_digests(index: Index, *, show: bool = True) -> None:
    """Read the shards of a local root completely and compare their SHA-256 with the index.

    Raises:
        DataError: For the first shard that differs.
    """
    with progress("verifying", len(index.shards), unit="shards", show=show) as advance:
        for shard in index.shards:
            file = index.root.url(shard.name)
            if sha256_of_file(file) != shard.sha256:
                raise DataError(f"{file} is not the file that was indexed: its SHA-256 differs. Fetch it again.")
            advance(1)
