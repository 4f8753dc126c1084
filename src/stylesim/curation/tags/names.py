"""Lists of artists, mediums and movements, and the words that a name or a caption is made of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from stylesim.core.errors import StylesimError

KINDS = {"medium": "mediums.txt", "movement": "movements.txt", "artist": "artists.txt"}
"""The kinds of tags, and the file of clip-interrogator's that lists each. A name of two lists is of the first: the
Bauhaus is a movement, and digital art a medium."""
SMALL = frozenset(("a", "an", "and", "of", "the"))
"""Words that the published tag strings mostly lack (reference/csd.md, section 3)."""

BREAK = "\0"
"""Between the captions of one text; no caption has it."""
COMMA = ","
"""The word that a comma, a semicolon, a bar and a bracket are: no name is read across them."""

_COMMAS = dict.fromkeys(map(ord, ",;|()[]\u3001"), COMMA)
# What NFKD leaves in one piece.
_LETTERS = _COMMAS | str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ħ": "h", "ı": "i", "ŋ": "n"}
)
# One character for one, so that ASCII is translated at the speed of copying it.
_ASCII = {n: chr(n).lower() if chr(n).isalnum() or chr(n) == BREAK else " " for n in range(128)} | _COMMAS
_MARKS = re.compile(r"[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_SIGNS = re.compile(rf"[^\w{BREAK}{COMMA}]+|_+")
_ARTICLE = re.compile(r"^(a|an|the)\s+|\s+of$", re.IGNORECASE)  # of "a photo" and "an illustration of"


def words(text: str) -> list[str]:
    """The words of a text: case and accents folded, compatibility forms (ﬁ, ａ) too, divided by whatever is no letter.

    An apostrophe divides as well, so that "Van Gogh's" has the words of "Van Gogh". `&` is "and".
    """
    return [word for word in words_of([text.replace(BREAK, " ")]) if word != COMMA]


def words_of(texts: Sequence[str]) -> list[str]:
    """The words of many texts at once, COMMA where they have one and BREAK between them.

    Fast where they are all ASCII, or none is.
    """
    joined = f" {BREAK} ".join(texts)
    if joined.isascii():
        return joined.replace("&", " and ").translate(_ASCII).replace(COMMA, f" {COMMA} ").split()
    folded = _MARKS.sub("", unicodedata.normalize("NFKD", joined).casefold()).translate(_LETTERS)
    return _SIGNS.sub(" ", folded.replace("&", " and ")).replace(COMMA, f" {COMMA} ").split()


def phrase(text: str) -> str:
    """A line of a list as it stands in the words of a caption: without its article, single spaces between."""
    return " ".join(words(_ARTICLE.sub("", text.strip())))


def bare(text: str) -> str:
    """A name as the published tag strings have it: lower case, no punctuation, no small words."""
    return " ".join(word for word in words(re.sub(r"['’`.]", "", text)) if word not in SMALL)


def read_lists(given: Mapping[str, str | None]) -> dict[str, list[str]]:
    """Names of each kind: of the user's own file where `given` names one, of clip-interrogator's otherwise.

    Raises:
        StylesimError: If a file, or the package, is not there, or a file holds no name.
    """
    return {kind: read_list(path) if (path := given.get(kind)) else _published(kind) for kind in KINDS}


def read_list(path: str | Path) -> list[str]:
    """The lines of a text file that are neither empty nor begin with #."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StylesimError(f"{path} cannot be read as a list of names, one to a line ({error}).") from error
    return _lines(text, str(path))


def shipped(name: str) -> list[str]:
    """A list that comes with this package."""
    return _lines((resources.files("stylesim.curation") / "lists" / name).read_text(encoding="utf-8"), name)


def _lines(text: str, name: str) -> list[str]:
    found = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise StylesimError(f"{name} holds no name: one is expected on each line.")
    return found


def _published(kind: str) -> list[str]:
    # The package imports torch; its files are found without importing it.
    try:
        listed = files("clip-interrogator") or []
    except PackageNotFoundError:
        listed = []
    path = next((f.locate() for f in listed if f.as_posix() == f"clip_interrogator/data/{KINDS[kind]}"), None)
    if path is None:
        raise StylesimError(
            f"the list of {kind}s is that of clip-interrogator, which is not installed: pip install"
            f" 'stylesim[curate]', or name a file of your own."
        )
    return read_list(str(path))


def tag(kind: str, text: str) -> str:
    """What a line of a list is called as a tag: `medium:oil painting` for "an oil painting"."""
    return f"{kind}:{_ARTICLE.sub('', unicodedata.normalize('NFC', text.strip())).casefold()}"
