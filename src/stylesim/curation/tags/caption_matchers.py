"""Find names in captions: as whole words with the longest match, or as the published tag strings imply.

Many captions are joined and matched together: an automaton of all spellings (Aho and Corasick, 1975) passes once over
the text, so Python code runs only for the captions that contain a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from stylesim.core.errors import ConfigError
from stylesim.curation.tags.caption_words import BREAK, COMMA, SMALL_WORDS, words_of
from stylesim.curation.tags.vocabulary import Spelling, Vocabulary


class ExactMatcher:
    """Find the spellings of a vocabulary as whole words, regardless of case, accents and punctuation.

    If one match is inside another, only the longer one counts: "Rembrandt Peale" is not Rembrandt. A name is not
    matched across a comma: "a study for a video, art of the nineties" is not video art.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._automaton = _automaton((f" {name} ", _lengths(name, s)) for name, s in vocabulary.spellings.items())

    def find_all(self, captions: Sequence[str]) -> list[list[str]]:
        """Return the distinct tags of each caption, in the order of their first words."""
        tags: list[list[str]] = [[] for _ in captions]
        for numbers in _by_encoding(captions):
            text = f" {' '.join(words_of([captions[n].replace(BREAK, ' ') for n in numbers]))} "
            matches: list[tuple[int, int, str]] = []
            caption, end, ends = -1, -1, _caption_ends(text)
            for at, (name, cut, tag) in self._automaton.iter(text):
                while at >= end:
                    if matches:
                        tags[numbers[caption]], matches = _longest(matches), []
                    caption, end = caption + 1, next(ends)
                matches.append((at - name, cut - at, tag))
            if matches:
                tags[numbers[caption]] = _longest(matches)
        return tags


class ReferenceMatcher:
    """Find names in the form of the published tag strings anywhere in a caption of the same form.

    Case, punctuation, small words and word boundaries do not count: every name that is a substring is a tag, including
    "dada" in "dadadodo". There are no aliases and no stop list. Source: reference/csd.md, section 3.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._automaton = _automaton(vocabulary.published.items())

    def find_all(self, captions: Sequence[str]) -> list[list[str]]:
        """Return the distinct tags of each caption, in the order of their last letters."""
        tags: list[list[str]] = [[] for _ in captions]
        for numbers in _by_encoding(captions):
            stripped = [captions[n].translate(_STRIPPED).replace(BREAK, " ") for n in numbers]
            text = f"{' '.join(word for word in words_of(stripped) if word not in _IGNORED)} "
            caption, end, ends = -1, -1, _caption_ends(text)
            for at, tag in self._automaton.iter(text):
                while at >= end:
                    caption, end = caption + 1, next(ends)
                if tag not in (known := tags[numbers[caption]]):
                    known.append(tag)
        return tags


_IGNORED = SMALL_WORDS | {COMMA}
_STRIPPED = dict.fromkeys(map(ord, "'’`."))


def _automaton(entries: Iterable[tuple[str, Any]]) -> Any:
    try:
        import ahocorasick
    except ImportError as error:
        raise ConfigError(
            "Captions are searched with pyahocorasick, which is not installed: run pip install 'stylesim[curate]'."
        ) from error
    automaton = ahocorasick.Automaton()
    for text, value in entries:
        automaton.add_word(text, value)
    automaton.make_automaton()
    return automaton


def _lengths(name: str, spelling: Spelling) -> tuple[int, int, str]:
    """Return the length from the start of the name to the end of the spelling, the length after the name, the tag."""
    words = name.split()
    after = words[len(words) - spelling.after :]
    return len(" ".join(words[spelling.before :])), len("".join(f" {word}" for word in after)), spelling.tag


def _by_encoding(captions: Sequence[str]) -> Iterator[list[int]]:
    """Yield the numbers of the ASCII captions, then those of all others, because `words_of` is faster for ASCII."""
    is_ascii = [caption.isascii() for caption in captions]
    for wanted in (True, False):
        if numbers := [n for n, ascii in enumerate(is_ascii) if ascii is wanted]:
            yield numbers


def _caption_ends(text: str) -> Iterator[int]:
    """Yield the position at which each caption of a joined text ends."""
    return accumulate(len(caption) + 1 for caption in text.split(BREAK))


def _longest(matches: list[tuple[int, int, str]]) -> list[str]:
    """Return the tags of the matches (start, negative end, tag) that are not inside another match."""
    if len(matches) > 1:
        matches.sort()  # by start, longest first: a match is inside an earlier one if it does not end after it
        furthest, tags = 1, []
        for _, end, tag in matches:
            if end < furthest:
                furthest = end
                tags.append(tag)
        return [tag for tag in dict.fromkeys(tags) if tag]
    return [matches[0][2]] if matches[0][2] else []
