"""How each name may be written, and which tag it stands for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from stylesim.curation.names import bare, phrase, tag

Surnames = Literal["always", "cued", "never"]

PARTICLES = frozenset(
    ("van", "von", "der", "den", "de", "da", "di", "del", "della", "la", "le", "du", "ter", "ten", "zu")
)
SUFFIXES = frozenset(("elder", "younger", "jr", "sr", "ii", "iii"))
CUES = (("by ", ""), ("after ", ""), ("style of ", ""), ("", " style"), ("", " inspired"))
"""What stands in front of a name, or behind, that is an author's."""


class Spelling(NamedTuple):
    """What some words of a caption mean."""

    tag: str
    before: int = 0
    """How many of the words are no part of the name, in front of it: the "by" of "by Mucha"."""
    behind: int = 0


class Vocabulary(NamedTuple):
    """What is looked for in captions."""

    spellings: dict[str, Spelling]
    """By words as `names.words` gives them, joined by single spaces."""
    bare: dict[str, str]
    """Tag by what the published tag strings call it."""

    @property
    def tags(self) -> set[str]:
        return {spelling.tag for spelling in self.spellings.values()}


class Lists(NamedTuple):
    """Lines of text files: the names, and what is known about how they are written."""

    names: Mapping[str, Sequence[str]]
    """By kind."""
    aliases: Sequence[str] = ()
    """Lines `name: another, and another`; where no list has the name, the line is left out."""
    cued: Sequence[str] = ()
    """The same for spellings that are words as well: they count only beside a word of authorship (CUES)."""
    stop: Sequence[str] = ()
    """No spelling of anything."""


def vocabulary(lists: Lists, surnames: Surnames) -> Vocabulary:
    """The names and all their spellings.

    Spellings that follow by rule are added where they are nobody else's: "JMW Turner" and "J. Turner" for J. M. W.
    Turner, the plural of a medium, and an artist's surname as `surnames` says: always, never, or `cued`.
    """
    tags: dict[str, str] = {}
    for kind, listed in lists.names.items():
        # Of two spellings of the same words, the one with more accents is the careful one.
        for text in sorted(listed, key=lambda text: sum(not c.isascii() for c in text), reverse=True):
            tags.setdefault(phrase(text), tag(kind, text))
    tags |= dict(_aliases(lists.aliases, tags))
    cued = dict(_aliases(lists.cued, tags))
    stopped = {phrase(text) for text in lists.stop}
    claims: dict[str, set[Spelling]] = defaultdict(set)
    for spelt, found in tags.items():
        for variant, spelling in _variants(spelt, cued.get(spelt, found), stopped, surnames):
            claims[variant].add(spelling)
    spellings = {variant: next(iter(found)) for variant, found in claims.items() if len(found) == 1}
    spellings |= {spelt: Spelling(found) for spelt, found in tags.items() if spelt not in cued}
    spellings |= {variant: spelling for spelt, found in cued.items() for variant, spelling in _cued(spelt, found)}
    unwanted = stopped | cued.keys()
    return Vocabulary(
        {spelt: spelling for spelt, spelling in spellings.items() if spelt and spelt not in unwanted},
        {
            bare(text): tags[phrase(text)]
            for listed in reversed([*lists.names.values()])
            for text in listed
            if bare(text)
        },
    )


def _aliases(lines: Sequence[str], tags: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, _, others = line.partition(":")
        if found := tags.get(phrase(name)):
            yield from ((phrase(other), found) for other in (others or name).split(","))


def _variants(spelt: str, found: str, stopped: set[str], surnames: Surnames) -> Iterator[tuple[str, Spelling]]:
    """Other ways to write one spelling of a tag."""
    if "color" in spelt:
        yield spelt.replace("color", "colour"), Spelling(found)
    if found.startswith("medium:") and not spelt.endswith("s"):
        yield f"{spelt}s", Spelling(found)
    *given, surname = spelt.split()
    while given and given[-1] in PARTICLES:
        surname = f"{given.pop()} {surname}"
    if not found.startswith("artist:") or not given or surname in SUFFIXES:
        return
    initials = [len(word) == 1 for word in given]
    if all(initials):
        yield f"{''.join(given)} {surname}", Spelling(found)
    elif any(initials[1:]):
        yield " ".join([*(word for word in given if len(word) > 1), surname]), Spelling(found)
    if surname in stopped:
        return
    yield f"{given[0][0]} {surname}", Spelling(found)
    if surnames == "always" or (surnames == "cued" and " " in surname):
        yield surname, Spelling(found)
    elif surnames == "cued":
        yield from _cued(surname, found)


def _cued(spelt: str, found: str) -> Iterator[tuple[str, Spelling]]:
    for before, behind in CUES:
        yield f"{before}{spelt}{behind}", Spelling(found, len(before.split()), len(behind.split()))
