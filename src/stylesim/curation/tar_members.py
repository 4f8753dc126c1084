"""Read single members of a tar file, in any order."""

from __future__ import annotations

import gzip
import tarfile
import threading
from pathlib import Path

from stylesim.core.file_names import printable
from stylesim.data.shards.tar_reader import MAX_MEMBER, SafeHeader


class TarMembers:
    """The members of a tar file by name.

    If the tar is truncated or damaged, the members before the damage can be read, and `complete` is False. Reading the
    members of a compressed tar is fastest in order.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            self.compressed = file.read(2) == b"\x1f\x8b"
        opener = gzip.open if self.compressed else open
        self._file = opener(path, "rb")
        self._lock = threading.Lock()
        self._ranges: dict[str, tuple[int, int]] = {}
        self.complete = True
        try:
            with tarfile.open(fileobj=self._file, mode="r:", tarinfo=SafeHeader) as tar:
                for member in tar:
                    if member.size < 0:  # said by an extended header; it would lead tarfile back
                        raise tarfile.ReadError("a member of negative size")
                    if member.isfile() and not member.issparse() and member.size <= MAX_MEMBER:
                        self._ranges.setdefault(printable(member.name), (member.offset_data, member.size))
        except Exception:  # tarfile raises errors of many kinds for a damaged tar
            self.complete = False

    def names(self) -> list[str]:
        """Return the names of all members that are files, as `printable` writes them."""
        return list(self._ranges)

    def locator(self, name: str) -> str:
        """Return a locator for `read_image_bytes`. In an uncompressed tar, its offset makes it fast to read."""
        offset, size = self._ranges[name]
        path = printable(self.path)
        return f"{path}::{name}" if self.compressed else f"{path}::{offset}+{size}::{name}"

    def read(self, name: str) -> bytes:
        """Read one member.

        Raises:
            KeyError: If there is no such member.
            EOFError: If the tar ends inside it.
        """
        offset, size = self._ranges[name]
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(size)
        return _check_length(data, size)


def read_range(path: str | Path, offset: int, size: int) -> bytes:
    """Read `size` bytes of a file from an offset.

    Raises:
        EOFError: If the file has fewer bytes.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        return _check_length(file.read(size), size)


def _check_length(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise EOFError("the tar ends inside it")
    return data
