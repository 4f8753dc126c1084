"""Names in captions: whole words and the longest match, or whatever the published tag strings imply."""

from __future__ import annotations

from typing import Any

from stylesim.curation.names import bare, words
from stylesim.curation.vocabulary import Vocabulary


class ExactMatcher:
    """Finds the spellings of a vocabulary as whole words, whatever their case, accents and punctuation.

    Of matches that lie one in the other only the longest counts: "Rembrandt Peale" is not Rembrandt. A tree of words is
    walked from each word that begins a name, which most words do not: several times faster than an automaton of
    letters (benchmarks/captions.py).
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tree: dict[str, Any] = {}
        for spelt, spelling in vocabulary.spellings.items():
            node = self._tree
            for word in spelt.split():
                node = node.setdefault(word, {})
            node[""] = spelling  # no word is empty

    def find(self, caption: str) -> list[str]:
        """The tags of a caption, each once, in the order of their first words."""
        text = words(caption)
        if self._tree.keys().isdisjoint(text):
            return []
        found: list[tuple[int, int, str]] = []
        for start, word in enumerate(text):
            node, end = self._tree.get(word), start + 1
            while node is not None:
                if (spelling := node.get("")) is not None:
                    found.append((start + spelling.before, end - spelling.behind, spelling.tag))
                node, end = node.get(text[end]) if end < len(text) else None, end + 1
        if len(found) > 1:
            found = sorted(one for one in found if not any(_holds(other, one) for other in found))
        return list(dict.fromkeys(tag for _, _, tag in found))


class ReferenceMatcher:
    """Finds the names as the published tag strings have them anywhere in the text of a caption, stripped alike.

    Case, punctuation and small words do not count, and neither do the bounds of words: every name that is a part of the
    text is a tag, "dada" in "dadadodo" as well. No alias, no stop list. Source: reference/csd.md, section 3.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        import ahocorasick

        self._automaton = ahocorasick.Automaton()
        for name, tag in vocabulary.bare.items():
            self._automaton.add_word(name, tag)
        self._automaton.make_automaton()

    def find(self, caption: str) -> list[str]:
        """The tags of a caption, each once, in the order of their last letters."""
        return list(dict.fromkeys(tag for _, tag in self._automaton.iter(bare(caption))))


def _holds(other: tuple[int, int, str], one: tuple[int, int, str]) -> bool:
    return other[0] <= one[0] and one[1] <= other[1] and other[1] - other[0] > one[1] - one[0]
