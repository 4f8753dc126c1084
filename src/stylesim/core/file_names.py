"""Names of files as text that can be printed and stored, and the files that such text means."""

from __future__ import annotations

import os
import re
from pathlib import Path

_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")


def printable(text: str | Path) -> str:
    r"""Return a name as text that every file format and terminal can hold.

    A byte of a file name that is not UTF-8 becomes `\xNN`, so two names that differ stay different. All other names are
    returned as they are.
    """
    text = str(text)
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON can hold it
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def path_parts(path: str) -> tuple[str, ...]:
    r"""Return the printable parts of the path of a file, relative to the folder in which it was found.

    A backslash also separates parts: Linux unpacks a zip from Windows into files called `monet\0.jpg`.
    """
    return tuple(printable(part) for part in re.split(r"[/\\]", path))


def find_file(folder: Path, text: str) -> Path:
    r"""Return the file that text means: relative to a folder, or absolute.

    If there is no file of this very name, but one whose name `printable` writes like this, or one with `/` in place of
    each backslash (as a table from Windows means it), that file is returned.
    """
    file = folder / text
    if "\\" in text and not os.path.lexists(file):
        as_bytes = _BYTE.sub(lambda match: chr(0xDC00 + int(match[1], 16)), text)
        for other in (as_bytes, text.replace("\\", "/")):
            if os.path.lexists(folder / other):
                return folder / other
    return file
