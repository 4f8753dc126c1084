"""Where the samples of a plain tar on a local disk begin, read off its headers alone: any can be passed over."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

BLOCK = 512
MAX_ABOUT = 1 << 20


@lru_cache(maxsize=2)
def sample_offsets(path: str, stamp: tuple[int, int], max_member: int) -> list[int]:
    """Offsets at which the samples of a tar begin, in order, as `tars.group` tells them apart.

    They end where anything stands that tarfile alone should read (long names, sparse files, damage, the end): what
    follows is read from the last of them on. There is none for a compressed tar. `stamp`: the size and the time of
    the file, of which this is remembered; members of more than `max_member` bytes count for nothing.
    """
    from webdataset.tariterators import base_plus_ext  # imports torch

    offsets, key = [], None
    with Path(path).open("rb") as file:
        for offset, size, name in _members(file):
            prefix, _ = base_plus_ext(name)
            if size <= max_member and prefix is not None and prefix != key:
                offsets.append(offset)
                key = prefix
    return offsets


def _members(file: BinaryIO) -> Iterator[tuple[int, int, str]]:
    """(offset, size, name) of the regular files from the first on, without their contents."""
    begin = offset = 0
    while True:
        file.seek(offset)
        header = file.read(BLOCK)
        try:
            size, checksum = (
                int(header[place].strip(b" \0") or b"0", 8) for place in (slice(124, 136), slice(148, 156))
            )
        except ValueError:  # a size in base 256, or no header
            return
        if size < 0 or len(header) < BLOCK or checksum != sum(header) - sum(header[148:156]) + 8 * ord(" "):
            return
        kind, name = header[156:157], _text(header[:100])
        if kind in (b"0", b"\0") and not name.endswith("/"):
            folder = _text(header[345:500])
            yield begin, size, f"{folder}/{name}" if folder else name
        elif kind == b"x" and size <= MAX_ABOUT:  # times and the like, of the member that follows
            about = file.read(size)
            if any(word in about for word in (b" path=", b" size=", b"GNU.sparse")):
                return
        elif kind != b"5" or size:
            return
        offset += BLOCK + -(-size // BLOCK) * BLOCK
        begin = begin if kind == b"x" else offset


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")
