"""Distinguish a cache that cannot be written from a server that cannot be reached, and say how to move the cache."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from tempfile import TemporaryFile

from stylesim.core.errors import WeightsError

_DISK = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.EIO,
    errno.ENAMETOOLONG, errno.EFBIG, errno.EMFILE,
}  # fmt: skip
_FULL = {errno.ENOSPC, errno.EDQUOT}


def disk_problem(error: BaseException | None) -> str | None:
    """Return the reason if an error, or an error that caused it, is about files; None if it is about the network.

    Errors of sockets have the same class, but no file name. Errors of a full disk need not have one.
    """
    while error is not None:
        if isinstance(error, OSError) and (error.errno in _FULL or (error.errno in _DISK and error.filename)):
            return error.strerror or str(error)
        error = error.__cause__ or error.__context__
    return None


def require_writable(folder: Path, title: str, setting: str, size: int | None = None) -> None:
    """Check that a file can be written into a cache. The folder is created if it does not exist.

    Args:
        folder: The folder.
        title: Name of the weights, for the message.
        setting: The environment variable that moves the cache.
        size: Number of bytes that must be free, if it is known.

    Raises:
        WeightsError: If the folder cannot be written, or has too little free space.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise not_saved(title, folder, error.strerror or str(error), setting) from error
    if size and (free := shutil.disk_usage(folder).free) < size:
        reason = f"it needs {size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free"
        raise not_saved(title, folder, reason, setting)


def not_saved(title: str, folder: Path, reason: str, setting: str) -> WeightsError:
    """Return the error for weights that cannot be written into a cache."""
    return WeightsError(
        f"The weights of {title} cannot be saved in {folder} ({reason}). Make room there, or set the environment "
        f"variable {setting} to a folder that can be written."
    )
