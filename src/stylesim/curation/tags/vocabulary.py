"""How each name may be written, and which tag it stands for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from stylesim.curation.tags.names import COMMA, bare, phrase, tag, words

Surnames = Literal["always", "cued", "never"]

PARTICLES = frozenset(
    ("van", "von", "der", "den", "de", "da", "di", "del", "della", "la", "le", "du", "ter", "ten", "zu")
)
SUFFIXES = frozenset(("elder", "younger", "jr", "sr", "ii", "iii"))
CUES = (("by ", ""), ("after ", ""), ("style of ", ""), ("", " style"), ("", " inspired"))
"""What stands in front of a name, or behind, that is an author's."""
POSSESSIVE = ("", " s")


class Spelling(NamedTuple):
    """What some words of a caption mean."""

    tag: str
    """Empty where they mean nothing, and hide the names within."""
    before: int = 0
    """How many of the words are no part of the name, in front of it: the "by" of "by Mucha"."""
    behind: int = 0


class Vocabulary(NamedTuple):
    """What is looked for in captions."""

    spellings: dict[str, Spelling]
    """By words as `names.words_of` gives them, joined by single spaces."""
    bare: dict[str, str]
    """Tag by what the published tag strings call it."""

    @property
    def tags(self) -> set[str]:
        return {spelling.tag for spelling in self.spellings.values()} - {""}


class Lists(NamedTuple):
    """Lines of text files: the names, and what is known about how they are written."""

    names: Mapping[str, Sequence[str]]
    """By kind."""
    aliases: Sequence[str] = ()
    """Lines `name: another, and another`; where no list has the name, the line is left out."""
    cued: Sequence[str] = ()
    """The same for spellings that are words as well: they count only as an author's (CUES, POSSESSIVE)."""
    stop: Sequence[str] = ()
    """Spellings of nothing. Several words hide the names within: of "van gogh museum" nothing is found."""


def vocabulary(lists: Lists, surnames: Surnames) -> Vocabulary:
    """The names and all their spellings.

    Spellings that follow by rule are added where they are nobody else's: the plural of a medium; "JMW Turner", "J.
    Turner" and "William Turner" for artists of such names; "Herring, Jr." with its comma; and an artist's surname as
    `surnames` says: always, never, or `cued` (CUES).
    """
    tags = _names(lists)
    cued = dict(_aliases(lists.cued, tags))
    stopped = {phrase(text) for text in lists.stop}
    known = tags.keys() | stopped
    claims: dict[str, set[Spelling]] = defaultdict(set)
    for spelt, found in tags.items():
        for variant, spelling in _variants(spelt, cued.get(spelt, found), known, surnames):
            claims[variant].add(spelling)
    spellings = {variant: next(iter(found)) for variant, found in claims.items() if len(found) == 1}
    spellings |= {spelt: Spelling(found) for spelt, found in tags.items()}
    for spelt, found in cued.items():
        spellings.pop(spelt, None)
        spellings |= dict(_cued(spelt, found, (*CUES, POSSESSIVE)))
    for spelt in stopped:
        spellings.pop(spelt, None)
    spellings |= {spelt: Spelling("") for spelt in stopped if " " in spelt}
    spellings.pop("", None)
    names = {bare(text): tags[phrase(text)] for listed in reversed([*lists.names.values()]) for text in listed}
    return Vocabulary(spellings, {name: found for name, found in names.items() if name})


def _names(lists: Lists) -> dict[str, str]:
    """Tags by the names of the lists and their aliases."""
    tags: dict[str, str] = {}
    for kind, listed in lists.names.items():
        # Of two spellings of the same words, the one with more accents is the careful one.
        for text in sorted(listed, key=lambda text: sum(c.isalpha() and not c.isascii() for c in text), reverse=True):
            tags.setdefault(phrase(text), tag(kind, text))
    for line in lists.aliases:  # the careful spelling of a name is that of its line
        name = line.partition(":")[0]
        if found := tags.get(phrase(name)):
            tags[phrase(name)] = tag(found.partition(":")[0], name)
    tags |= dict(_aliases(lists.aliases, tags))
    for spelt, found in list(tags.items()):  # MC Escher is M. C. Escher
        if (joined := _joined(spelt.split())) != spelt and joined in tags:
            tags[joined] = found
    return tags


def _aliases(lines: Sequence[str], tags: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, _, others = line.partition(":")
        if found := tags.get(phrase(name)):
            yield from ((phrase(other), found) for other in (others or name).split(","))


def _variants(spelt: str, found: str, known: set[str], surnames: Surnames) -> Iterator[tuple[str, Spelling]]:
    """Other ways to write one spelling of a tag; nobody's surname is what is `known` as something else."""
    if "color" in spelt:
        yield spelt.replace("color", "colour"), Spelling(found)
    if found.startswith("medium:") and not spelt.endswith("s"):
        yield f"{spelt}s", Spelling(found)
    given, surname = _surname(spelt, found)
    if not found.startswith("artist:") or not given:
        return
    if surname in SUFFIXES:  # "Herring, Jr.", and "Bruegel, the Elder"
        article = given[-1] == "the"
        yield " ".join([*given[: len(given) - article], COMMA, *["the"] * article, surname]), Spelling(found)
        return
    yield f"{_joined(given)} {surname}", Spelling(found)
    if any(len(word) == 1 for word in given[1:]) and len(given[0]) > 1:
        yield " ".join([*(word for word in given if len(word) > 1), surname]), Spelling(found)
    if surname in known:
        return
    initials = [word[0] for word in given]
    for start in {(initials[0],), tuple(initials), tuple(given[1:])} - {()}:
        yield f"{' '.join(start)} {surname}", Spelling(found)
        yield f"{_joined(start)} {surname}", Spelling(found)
    if surnames == "always" or (surnames == "cued" and " " in surname):
        yield surname, Spelling(found)
    elif surnames == "cued":
        yield from _cued(surname, found, CUES)


def _surname(spelt: str, found: str) -> tuple[list[str], str]:
    """Given names, and the surname with its particles and what a hyphen joins to it."""
    *given, surname = spelt.split()
    if "-" in (last := found.split()[-1]) and spelt.endswith(f" {' '.join(words(last))}"):
        surname = " ".join(words(last))
        given = spelt.removesuffix(f" {surname}").split()
    while given and given[-1] in PARTICLES:
        surname = f"{given.pop()} {surname}"
    return given, surname


def _joined(names: Sequence[str]) -> str:
    """The initials among names written as one word: "jmw turner"."""
    out = ""
    for before, name in zip(["", *names], names, strict=False):
        out += name if len(before) == 1 == len(name) else f" {name}"
    return out.strip()


def _cued(spelt: str, found: str, cues: Sequence[tuple[str, str]]) -> Iterator[tuple[str, Spelling]]:
    for before, behind in cues:
        yield f"{before}{spelt}{behind}", Spelling(found, len(before.split()), len(behind.split()))
