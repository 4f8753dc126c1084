"""Write samples into shards, as WebDataset reads them."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from stylesim.core.errors import DataError
from stylesim.data.shards.tar_reader import EXTENSIONS


class ShardWriter:
    """Writes samples into shards `<prefix>00000.tar`, ...: the same samples give the same bytes.

    A shard is closed after `size` samples, and gets its name only when it is complete. `suffix` is `.tar` or
    `.tar.gz`. Raises `DataError` on a key that webdataset would not read back as it is.
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
            raise DataError(f"{key!r} with .{extension} cannot be a sample: a key has no dot, an image is {EXTENSIONS}")
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
