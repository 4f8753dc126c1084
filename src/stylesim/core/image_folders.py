"""Find the files of a folder of images: the one rule that every command follows."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from stylesim.core.images import EXTENSIONS

SYSTEM_NAMES = frozenset({"@eaDir", "__MACOSX", "Thumbs.db"})
"""Files and folders of thumbnails and metadata that operating systems leave among a user's images."""

logger = logging.getLogger(__name__)


def visible_files(folder: Path) -> list[Path]:
    """List every file below a folder, ordered by path.

    Hidden files and folders (their name starts with a dot) and `SYSTEM_NAMES` are left out. Symbolic links are
    followed, except a link to a folder that contains it. What cannot be listed, and a link that leads nowhere, is
    named in a warning.

    Args:
        folder: The folder to search, at any depth.

    Returns:
        Paths that start with `folder`, ordered by their text with "/" between the parts.
    """
    files = list(_walk(str(folder), ancestors=()))
    return [Path(file) for file in sorted(files, key=lambda file: file.replace(os.sep, "/"))]


def is_image_file(file: Path) -> bool:
    """Return whether the suffix of a file is that of an image, in upper or lower case."""
    return file.suffix.lower() in EXTENSIONS


def image_files(folder: Path) -> list[Path]:
    """List the image files below a folder, as `visible_files` finds and orders them."""
    return [file for file in visible_files(folder) if is_image_file(file)]


def _walk(folder: str, ancestors: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Yield the visible files below a folder; `ancestors` are the device and inode of the folders above it."""
    try:
        status = os.stat(folder)
        entries = list(os.scandir(folder))
    except OSError as error:
        logger.warning("The folder %s is left out, because it cannot be read: %s.", folder, error.strerror or error)
        return
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors:  # a symbolic link that leads back up
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in SYSTEM_NAMES:
            continue
        if entry.is_dir():
            yield from _walk(entry.path, (*ancestors, identity))
        elif entry.is_file():
            yield entry.path
        elif entry.is_symlink():
            logger.warning("The link %s is left out, because it leads nowhere.", entry.path)
