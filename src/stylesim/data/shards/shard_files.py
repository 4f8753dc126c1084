"""Shards of images: writing them, and reading them in order."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType

from stylesim.core.errors import StylesimError
from stylesim.data.roots import name_roots
from stylesim.data.sample import Sample
from stylesim.data.shards.shard_index import Index, index_shards, load_index
from stylesim.data.shards.tar_reader import EXTENSIONS, Slot

__all__ = ["ShardSamples", "ShardWriter", "index_shards", "load_index", "read_samples"]


def read_samples(
    roots: str | Path | Sequence[str | Path], rank: int = 0, world: int = 1, *, images: bool = True
) -> ShardSamples:
    """Every image of one or several roots in the order of their indices: items `rank`, `rank + world`, ...
    of them.

    Without `images` only the labels are given. Raises `StylesimError` as `load_index` does.
    """
    given = [roots] if isinstance(roots, str | Path) else roots
    return ShardSamples(tuple(load_index(root) for root in name_roots(given)), rank, world, images)


@dataclass
class ShardSamples:
    """The images of shards, in order, read anew by each iteration."""

    indices: tuple[Index, ...]
    rank: int = 0
    world: int = 1
    images: bool = True
    damaged: list[tuple[str, str]] = field(default_factory=list)
    """(id or shard, reason) of what the latest iteration had to leave out."""

    def __len__(self) -> int:
        return len(range(self.rank, sum(index.count for index in self.indices), self.world))

    def __iter__(self) -> Iterator[Sample]:
        self.damaged.clear()
        position = 0
        for index in self.indices:
            for number, shard in enumerate(index.shards):
                slots = index.read(number, range(shard.count))
                yield from self._items(islice(slots, (self.rank - position) % self.world, None, self.world), shard.name)
                position += shard.count

    def _items(self, slots: Iterable[Slot], shard: str) -> Iterator[Sample]:
        for slot in slots:
            if slot.image is None:
                self.damaged.append((slot.key, slot.reason or ""))
                continue
            content = slot.labels.get("content")
            yield Sample(
                id=slot.key,
                image=slot.image if self.images else None,
                tags=slot.labels["tags"],
                content=None if content is None else str(content),
                source=shard,
            )


class ShardWriter:
    """Writes samples into shards `<prefix>00000.tar`, ...: the same samples give the same bytes.

    A shard is closed after `size` samples, and gets its name only when it is complete. `suffix` is `.tar` or
    `.tar.gz`. Raises `StylesimError` on a key that webdataset would not read back as it is.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        size: int = 10_000,
        prefix: str = "",
        suffix: str = ".tar",
        first: int = 0,
    ):
        self.folder, self.size, self.prefix, self.suffix = Path(folder), size, prefix, suffix
        self.number, self.count = first, 0
        self._stack = ExitStack()
        self._tar: tarfile.TarFile | None = None
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> Path:
        """The shard being written, or the next one."""
        return self.folder / f"{self.prefix}{self.number:05d}{self.suffix}"

    def write(self, key: str, image: bytes, labels: dict, *, extension: str = "jpg") -> None:
        """Add one encoded image with its labels."""
        if not key or "." in key or key.startswith(("/", "__")) or extension not in EXTENSIONS:
            raise StylesimError(
                f"{key!r} with .{extension} cannot be a sample: a key has no dot, an image is {EXTENSIONS}"
            )
        tar = self._tar or self._open()
        self._add(tar, f"{key}.{extension}", image)
        self._add(tar, f"{key}.json", json.dumps(labels, ensure_ascii=False, sort_keys=True).encode())
        self.count += 1
        if self.count == self.size:
            self.close()

    def close(self) -> None:
        """Finish the shard that is being written."""
        if self._tar is not None:
            self._stack.close()
            os.replace(self._part, self.path)
            self._tar, self.number, self.count = None, self.number + 1, 0

    @property
    def _part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    def _open(self) -> tarfile.TarFile:
        file = self._stack.enter_context(self._part.open("wb"))
        if self.suffix.endswith(".gz"):
            # No name and no time in the header, or the same samples give other bytes.
            file = self._stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
        self._tar = self._stack.enter_context(tarfile.TarFile(fileobj=file, mode="w"))
        return self._tar

    @staticmethod
    def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o644
        tar.addfile(member, io.BytesIO(data))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._stack.close()
            self._part.unlink(missing_ok=True)
