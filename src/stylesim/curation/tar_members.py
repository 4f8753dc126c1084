"""Single members of a tar, in any order."""

from __future__ import annotations

import gzip
import tarfile
import threading
import zlib
from pathlib import Path


class Tar:
    """The members of a tar by name, each read on its own.

    A tar that is cut off, or broken half-way, has the members that come before; `whole` tells. One that is
    compressed is best read in order.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
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
        except (tarfile.TarError, OSError, EOFError, zlib.error):
            self.whole = False

    def names(self) -> list[str]:
        return list(self._places)

    def locator(self, name: str) -> str:
        """Where `open_image_at` finds a member: at once in a plain tar, whose other members it need not look at."""
        offset, size = self._places[name]
        return f"{self.path}::{name}" if self.compressed else f"{self.path}::{offset}+{size}::{name}"

    def read(self, name: str) -> bytes:
        """Raises KeyError where there is no such member, EOFError where the tar ends within it."""
        offset, size = self._places[name]
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(size)
        if len(data) < size:
            raise EOFError("the tar ends within it")
        return data


def read_at(path: str, offset: int, size: int) -> bytes:
    """Bytes of a plain file; raises EOFError where it ends before them."""
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise EOFError("the tar ends within it")
    return data
