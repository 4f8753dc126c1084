"""Split captions and names into normalised words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

SMALL_WORDS = frozenset(("a", "an", "and", "of", "the"))
"""Words that the published tag strings mostly lack (reference/csd.md, section 3)."""

BREAK = "\0"
"""Separates the captions of one joined text. No caption contains it."""
COMMA = ","
"""The word that stands for a comma, semicolon, vertical bar or bracket. No name is matched across it."""

_COMMAS = dict.fromkeys(map(ord, ",;|()[]\u3001"), COMMA)
# Letters that NFKD does not decompose.
_LETTERS = _COMMAS | str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ħ": "h", "ı": "i", "ŋ": "n"}
)
# Maps one character to one character, so that translating ASCII text is as fast as copying it.
_ASCII = {n: chr(n).lower() if chr(n).isalnum() or chr(n) == BREAK else " " for n in range(128)} | _COMMAS
_MARKS = re.compile(r"[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_SIGNS = re.compile(rf"[^\w{BREAK}{COMMA}]+|_+")
_ARTICLE = re.compile(r"^(a|an|the)\s+|\s+of$", re.IGNORECASE)  # of "a photo" and "an illustration of"


def words(text: str) -> list[str]:
    """Return the words of a text, split at every character that is not a letter or a digit.

    Case, accents and compatibility forms (ﬁ, ａ) are normalised. An apostrophe also separates words, so that "Van
    Gogh's" contains the words of "Van Gogh"; `&` becomes "and".
    """
    return [word for word in words_of([text.replace(BREAK, " ")]) if word != COMMA]


def words_of(texts: Sequence[str]) -> list[str]:
    """Return the words of many texts in one list, with BREAK between texts and COMMA for each comma.

    ASCII texts have a faster path, so pass them separately from others.
    """
    joined = f" {BREAK} ".join(texts)
    if joined.isascii():
        return joined.replace("&", " and ").translate(_ASCII).replace(COMMA, f" {COMMA} ").split()
    folded = _MARKS.sub("", unicodedata.normalize("NFKD", joined).casefold()).translate(_LETTERS)
    return _SIGNS.sub(" ", folded.replace("&", " and ")).replace(COMMA, f" {COMMA} ").split()


def without_article(text: str) -> str:
    """Return a line of a name list without its article or trailing "of": "illustration" for "an illustration of"."""
    return _ARTICLE.sub("", text.strip())


def phrase(text: str) -> str:
    """Return a line of a name list as it appears among the words of a caption: "oil painting" for "an oil painting"."""
    return " ".join(words(without_article(text)))


def published_form(text: str) -> str:
    """Return a name as the published tag strings write it: lower case, without punctuation and small words."""
    return " ".join(word for word in words(re.sub(r"['’`.]", "", text)) if word not in SMALL_WORDS)
