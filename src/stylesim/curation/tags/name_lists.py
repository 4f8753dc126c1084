"""Read the lists of artists, mediums and movements that captions are searched for."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from importlib import resources
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from stylesim.core.errors import ConfigError
from stylesim.curation.tags.caption_words import without_article

KINDS = {"medium": "mediums.txt", "movement": "movements.txt", "artist": "artists.txt"}
"""The kinds of tags, and the file of clip-interrogator with the names of each kind. A name on two lists belongs to the
first of them: "digital art" is a medium, and "Bauhaus" is a movement."""


def read_name_lists(paths: Mapping[str, str | None]) -> dict[str, list[str]]:
    """Read the names of each kind.

    Args:
        paths: The user's own file for each kind. A kind without a file uses the list of clip-interrogator.

    Returns:
        The names of each kind.

    Raises:
        ConfigError: If a file or the package clip-interrogator is missing, or a file contains no name.
    """
    return {kind: read_list(path) if (path := paths.get(kind)) else _published(kind) for kind in KINDS}


def read_list(path: str | Path) -> list[str]:
    """Return the lines of a text file that are neither empty nor a comment (#).

    Raises:
        ConfigError: If the file cannot be read as UTF-8, or contains no such line.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read as a list of names ({error}). Give a UTF-8 text file with one name per line."
        ) from error
    return _lines(text, str(path))


def packaged_list(name: str) -> list[str]:
    """Read a list that is part of this package: aliases.txt, cued.txt or stop.txt."""
    return _lines((resources.files("stylesim.curation") / "lists" / name).read_text(encoding="utf-8"), name)


def make_tag(kind: str, text: str) -> str:
    """Return the tag of a line of a name list: `medium:oil painting` for "an oil painting"."""
    return f"{kind}:{without_article(unicodedata.normalize('NFC', text)).casefold()}"


def _lines(text: str, name: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise ConfigError(f"{name} contains no name: write one name per line.")
    return lines


def _published(kind: str) -> list[str]:
    # Importing clip-interrogator would import torch; its files are found without importing it.
    try:
        listed = files("clip-interrogator") or []
    except PackageNotFoundError:
        listed = []
    path = next((f.locate() for f in listed if f.as_posix() == f"clip_interrogator/data/{KINDS[kind]}"), None)
    if path is None:
        raise ConfigError(
            f"The list of {kind}s comes from clip-interrogator, which is not installed: run pip install"
            f" 'stylesim[curate]', or give a file of your own with tags.{kind}s=<path>."
        )
    return read_list(str(path))
