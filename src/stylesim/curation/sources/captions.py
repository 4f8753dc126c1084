"""Read a caption from the text file that stands beside an image."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable

from stylesim.core.text_files import decode_text


def read_caption(read: Callable[[], bytes], counts: Counter[str]) -> str | None:
    """Return the caption of a text file, None if the file cannot be read or its encoding is unknown.

    Args:
        read: Returns the bytes of the file.
        counts: Gets one more `captions_not_utf8` for a caption in Windows-1252, and `captions_unreadable` for None.
    """
    try:
        text, encoding = decode_text(read())
    except (UnicodeError, OSError, EOFError, zlib.error):
        counts["captions_unreadable"] += 1
        return None
    counts["captions_not_utf8"] += encoding == "cp1252"
    return text.strip()
