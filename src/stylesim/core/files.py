"""Write files atomically, and compute their digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a hidden path beside `path`, which replaces `path` if the block succeeds.

    A reader sees either the previous content or the whole new content. Processes that write the same path at the same
    time do not disturb each other; the last one to finish determines the content. If the block raises, the hidden file
    is removed.

    Args:
        path: The file, or new folder, to write. Its parent folder is created if it does not exist.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException as error:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)
        _name_place(error, path)
        raise


def _name_place(error: BaseException, path: Path) -> None:
    """Name the file in an error that a full disk has caused: `write` does not, and libraries have their own classes."""
    if isinstance(error, OSError) and error.filename is None:
        error.filename = str(path)
    elif isinstance(error, Exception) and not isinstance(error, OSError) and "No space left" in str(error):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def write_text(path: Path | str, text: str) -> None:
    """Write text atomically, as UTF-8; what UTF-8 cannot hold (a file name of other bytes) is escaped."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` atomically as indented JSON with sorted keys; unknown types are written as text."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, default=str) + "\n")


def sha256_of_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_text(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes as 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def reserve_space(path: Path | str) -> None:
    """Reserve the disk space of a file that is written through a memory map, where the system can.

    Without it, a full disk would end the process with a bus error instead of an exception.

    Raises:
        OSError: If there is not enough space.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with Path(path).open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
