"""Find the files of a folder of images: the one rule that every command follows."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from stylesim.core.file_names import printable
from stylesim.core.images import EXTENSIONS, FORMATS, PLUGIN_EXTENSIONS
from stylesim.core.images.formats import plugin_for, register
from stylesim.core.log_once import log_once

SYSTEM_NAMES = frozenset(
    ("@eadir", "#recycle", "@recycle", "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin")
)
"""Files and folders, in lower case, that operating systems and storage servers leave among a user's images."""
SIDE_FILES = frozenset(
    (
        *(".txt", ".caption", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".md", ".html", ".xml", ".xmp", ".yaml"),
        *(".yml", ".npy", ".npz", ".pt", ".safetensors", ".tar", ".gz", ".zip", ".log", ".py"),
    )
)
"""Suffixes of what stands beside images on purpose; such a file is not opened to see whether it is one."""


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
    above = [os.stat(parent) for parent in Path(os.path.realpath(folder)).parents if os.path.exists(parent)]
    files = list(_walk(str(folder), tuple((status.st_dev, status.st_ino) for status in above)))
    return [Path(file) for file in sorted(files, key=lambda file: file.replace(os.sep, "/"))]


def is_visible(name: str) -> bool:
    """Return whether the name of a file or folder is neither hidden nor one of `SYSTEM_NAMES`."""
    return not name.startswith(".") and name.lower() not in SYSTEM_NAMES


def is_image_file(file: Path) -> bool:
    """Return whether a file is an image: by its suffix, or by its content if the suffix does not tell.

    A file with the suffix of an image is one even if it is damaged, so that whoever opens it can count it.
    """
    suffix = file.suffix.lower()
    return suffix in EXTENSIONS or (suffix not in SIDE_FILES and _has_image_header(file))


def image_files(folder: Path) -> list[Path]:
    """List the image files below a folder, as `visible_files` finds and orders them.

    How many other files there are is logged by their suffix.
    """
    return select_images(visible_files(folder), folder)


def holds_image(folder: Path) -> bool:
    """Return whether there is an image file below a folder; the search ends at the first one."""
    return any(is_image_file(Path(file)) for file in _walk(str(folder), ()))


def select_images(files: Sequence[Path], folder: Path) -> list[Path]:
    """Return those of the files of a folder that are images, and log how many others there are by their suffix."""
    images = [file for file in files if is_image_file(file)]
    if len(images) < len(files):
        found = set(images)
        _report_others(folder, len(images), [file for file in files if file not in found])
    return images


def describe_suffixes(files: Sequence[Path]) -> str:
    """Count files by suffix, the most frequent first: `7 .heic (pip install pillow-heif reads them), 2 .txt`."""
    counts = Counter(printable(file.suffix.lower()) or "without a suffix" for file in files)
    hints = {
        suffix: f" (pip install {package} reads them)"
        for suffix, package in PLUGIN_EXTENSIONS.items()
        if suffix not in EXTENSIONS
    }
    return ", ".join(f"{count:,} {suffix}{hints.get(suffix, '')}" for suffix, count in counts.most_common())


def _report_others(folder: Path, images: int, others: Sequence[Path]) -> None:
    counts = describe_suffixes(others)
    expected = all(file.suffix.lower() in SIDE_FILES for file in others)
    log_once(
        logging.INFO if expected else logging.WARNING,
        f"{printable(folder)}: {images:,} images; {len(others):,} other files are left out ({counts}).",
    )


def _has_image_header(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            if plugin := plugin_for(stream.read(64)):
                return register(plugin)
        with Image.open(file, formats=FORMATS):
            return True
    except Image.DecompressionBombError:  # an image, but one that no command opens
        return True
    except Exception:  # PIL raises errors of nearly every kind for what is no image
        return False


def _walk(folder: str, ancestors: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Yield the visible files below a folder; `ancestors` are the device and inode of the folders above it."""
    try:
        status = os.stat(folder)
        entries = list(os.scandir(folder))
    except OSError as error:
        _warn("folder", folder, f"it cannot be read: {error.strerror or error}")
        return
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors:  # a symbolic link that leads back up
        return
    for entry in entries:
        if not is_visible(entry.name):
            continue
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:  # a link that leads to itself, or into a folder that cannot be searched
            _warn("link" if entry.is_symlink() else "file", entry.path, f"it cannot be read: {error.strerror or error}")
            continue
        if is_folder:
            yield from _walk(entry.path, (*ancestors, identity))
        elif is_file:
            yield entry.path
        elif entry.is_symlink():
            _warn("link", entry.path, "it leads nowhere")


def _warn(kind: str, path: str, reason: str) -> None:
    log_once(logging.WARNING, f"The {kind} {printable(path)} is left out, because {reason}.")
