"""Single members of a tar, in any order."""

from __future__ import annotations

import gzip
import tarfile
import threading
from pathlib import Path


class Tar:
    """The members of a tar by name, each read on its own.

    A tar that is cut off, or broken half-way, has the members that come before; `whole` tells. One that is
    compressed is best read in order.
    """

    def __init__(self, path: str | Path) -> None:
        with open(path, "rb") as file:
            self.compressed = file.read(2) == b"\x1f\x8b"
        opener = gzip.open if self.compressed else open
        self._file = opener(path, "rb")
        self._lock = threading.Lock()
        self._places: dict[str, tuple[int, int]] = {}
        self.whole = True
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                for member in tar:
                    if member.isfile():
                        self._places.setdefault(member.name, (member.offset_data, member.size))
        except (tarfile.TarError, OSError, EOFError):
            self.whole = False

    def names(self) -> list[str]:
        return list(self._places)

    def read(self, name: str) -> bytes:
        """Raises KeyError where there is no such member, EOFError where the tar ends within it."""
        offset, size = self._places[name]
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(size)
        if len(data) < size:
            raise EOFError("the tar ends within it")
        return data
