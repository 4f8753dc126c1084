"""Read text files of unknown encoding: recognise it, or say that it is unknown, but never return garbled text."""

from __future__ import annotations

import codecs
import logging
import re
from pathlib import Path

from stylesim.core.errors import DataError

_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# In the languages of Western Europe an accented letter or two stand alone among ASCII, apart from typographic signs. In
# other 8-bit encodings most words would have longer runs, or signs that no text has.
_SIGNS = "[‘’“”–—…«»°©®™·¡¿\xa0]{0,3}"
_WESTERN = re.compile(f"{_SIGNS}(?:[à-öø-ÿßœ]{{1,2}}|[À-ÖØ-ÞŒŠŽšžŸ])?{_SIGNS}")
_RUN = re.compile("[^\0-\x7f]+")

logger = logging.getLogger(__name__)


def read_text(file: Path) -> str:
    """Read a text file as `decode_text` does; a file that is not Unicode is named in a warning.

    Raises:
        OSError: If the file cannot be read.
        DataError: If its encoding is unknown.
    """
    try:
        text, encoding = decode_text(file.read_bytes())
    except UnicodeError as error:
        raise DataError(f"{file} is not text in UTF-8 or UTF-16 ({error}): save it as UTF-8.") from error
    if encoding == "cp1252":
        logger.warning("%s is not UTF-8, and is read as Windows-1252 (Western European).", file)
    return text


def decode_text(data: bytes) -> tuple[str, str]:
    """Decode text in UTF-8, UTF-16 or UTF-32 (with its mark; UTF-16 also without), or Windows-1252 and Latin-1.

    Returns:
        The text without a mark, and the name of its encoding.

    Raises:
        UnicodeError: If it is in none of them. Windows-1252 fits nearly all bytes, and so is only accepted where the
            text looks Western European.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding), encoding
    if b"\0" in data:  # no text has it, except UTF-16, where one of the two bytes of most letters is zero
        encoding = "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
        half = data[1::2] if encoding == "utf-16-le" else data[::2]
        if len(data) % 2 or half.count(0) * 2 < len(half):
            raise UnicodeError("it holds zero bytes")
        return data.decode(encoding), encoding
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            text = ""
        if text and all(_WESTERN.fullmatch(run) for run in _RUN.findall(text)):
            return text, "cp1252"
        line = data.count(b"\n", 0, error.start) + 1
        raise UnicodeError(f"line {line} has the byte {data[error.start]:#04x}") from error
