"""Names in captions: whole words and the longest match, or whatever the published tag strings imply.

Captions are matched many at once, as one text: an automaton of all spellings (Aho and Corasick 1975) goes over it in
one go, and nothing is done for a caption that names nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from stylesim.core.errors import StylesimError
from stylesim.curation.tags.names import BREAK, COMMA, SMALL, words_of
from stylesim.curation.tags.vocabulary import Spelling, Vocabulary


class ExactMatcher:
    """Finds the spellings of a vocabulary as whole words, whatever their case, accents and punctuation.

    Of matches that lie one in the other only the longest counts: "Rembrandt Peale" is not Rembrandt. Nor is a name read
    across a comma: "a study for a video, art of the nineties" is no video art.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._automaton = _automaton((f" {spelt} ", _lengths(spelt, s)) for spelt, s in vocabulary.spellings.items())

    def find_all(self, captions: Sequence[str]) -> list[list[str]]:
        """The tags of each caption, each once, in the order of their first words."""
        rows: list[list[str]] = [[] for _ in captions]
        for numbers in _alike(captions):
            text = f" {' '.join(words_of([captions[n].replace(BREAK, ' ') for n in numbers]))} "
            found: list[tuple[int, int, str]] = []
            row, stop, stops = -1, -1, _stops(text)
            for at, (name, cut, tag) in self._automaton.iter(text):
                while at >= stop:
                    if found:
                        rows[numbers[row]], found = _longest(found), []
                    row, stop = row + 1, next(stops)
                found.append((at - name, cut - at, tag))
            if found:
                rows[numbers[row]] = _longest(found)
        return rows


class ReferenceMatcher:
    """Finds the names as the published tag strings have them anywhere in the text of a caption, stripped alike.

    Case, punctuation and small words do not count, and neither do the bounds of words: every name that is a part of the
    text is a tag, "dada" in "dadadodo" as well. No alias, no stop list. Source: reference/csd.md, section 3.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._automaton = _automaton(vocabulary.bare.items())

    def find_all(self, captions: Sequence[str]) -> list[list[str]]:
        """The tags of each caption, each once, in the order of their last letters."""
        rows: list[list[str]] = [[] for _ in captions]
        for numbers in _alike(captions):
            stripped = [captions[n].translate(_STRIPPED).replace(BREAK, " ") for n in numbers]
            text = f"{' '.join(word for word in words_of(stripped) if word not in _DROPPED)} "
            row, stop, stops = -1, -1, _stops(text)
            for at, tag in self._automaton.iter(text):
                while at >= stop:
                    row, stop = row + 1, next(stops)
                if tag not in (tags := rows[numbers[row]]):
                    tags.append(tag)
        return rows


_DROPPED = SMALL | {COMMA}
_STRIPPED = dict.fromkeys(map(ord, "'’`."))


def _automaton(entries: Iterable[tuple[str, Any]]) -> Any:
    try:
        import ahocorasick
    except ImportError as error:
        raise StylesimError(
            "captions are searched by pyahocorasick, which is not installed: pip install 'stylesim[curate]'"
        ) from error
    automaton = ahocorasick.Automaton()
    for text, value in entries:
        automaton.add_word(text, value)
    automaton.make_automaton()
    return automaton


def _lengths(spelt: str, spelling: Spelling) -> tuple[int, int, str]:
    """Letters from the start of the name to the end of the spelling, those behind the name, and the tag."""
    words = spelt.split()
    behind = words[len(words) - spelling.behind :]
    return len(" ".join(words[spelling.before :])), len("".join(f" {word}" for word in behind)), spelling.tag


def _alike(captions: Sequence[str]) -> Iterator[list[int]]:
    """Numbers of the captions that are ASCII, and of those that are not: each sort has its own way."""
    ascii = [caption.isascii() for caption in captions]
    for sort in (True, False):
        if numbers := [n for n, is_ascii in enumerate(ascii) if is_ascii is sort]:
            yield numbers


def _stops(text: str) -> Iterator[int]:
    """Where each caption of a text ends."""
    return accumulate(len(caption) + 1 for caption in text.split(BREAK))


def _longest(found: list[tuple[int, int, str]]) -> list[str]:
    """Tags of the matches (start, minus the end, tag) that do not lie in another."""
    if len(found) > 1:
        found.sort()  # by their start, and the longest first: what does not reach further than one before lies in it
        reached, tags = 1, []
        for _, end, tag in found:
            if end < reached:
                reached = end
                tags.append(tag)
        return [tag for tag in dict.fromkeys(tags) if tag]
    return [found[0][2]] if found[0][2] else []
