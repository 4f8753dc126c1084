"""Derive the spellings of each name, and the tag that belongs to each spelling."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from stylesim.curation.tags.caption_words import COMMA, phrase, published_form, words
from stylesim.curation.tags.name_lists import make_tag

Surnames = Literal["always", "cued", "never"]

PARTICLES = frozenset(
    ("van", "von", "der", "den", "de", "da", "di", "del", "della", "la", "le", "du", "ter", "ten", "zu")
)
SUFFIXES = frozenset(("elder", "younger", "jr", "sr", "ii", "iii"))
CUES = (("by ", ""), ("after ", ""), ("style of ", ""), ("", " style"), ("", " inspired"))
"""Words before or after a name that mark it as the name of an author."""
POSSESSIVE = ("", " s")


class Spelling(NamedTuple):
    """The meaning of a sequence of words in a caption."""

    tag: str
    """Empty for a stop phrase, which has no tag and prevents matches of the names inside it."""
    before: int = 0
    """How many words at the start are not part of the name: 1 for the "by" of "by Mucha"."""
    after: int = 0
    """How many words at the end are not part of the name."""


class Vocabulary(NamedTuple):
    """All spellings that captions are searched for."""

    spellings: dict[str, Spelling]
    """The keys are the words of the spelling (see `caption_words.words_of`), joined with single spaces."""
    published: dict[str, str]
    """The tag of each name in the form of the published tag strings."""

    @property
    def tags(self) -> set[str]:
        """All tags of the vocabulary."""
        return {spelling.tag for spelling in self.spellings.values()} - {""}


class Lists(NamedTuple):
    """Lines of text files: the names, and how they may be spelled."""

    names: Mapping[str, Sequence[str]]
    """By kind."""
    aliases: Sequence[str] = ()
    """Lines `name: another, and another`. A line whose name is on no list is ignored."""
    cued: Sequence[str] = ()
    """The same for spellings that are also ordinary words; they count only beside CUES or with a POSSESSIVE."""
    stop: Sequence[str] = ()
    """Spellings without a tag. A stop phrase of several words prevents matches of the names inside it, so nothing is
    found in "van gogh museum"."""


def build_vocabulary(lists: Lists, surnames: Surnames) -> Vocabulary:
    """Return all names with all their spellings.

    Besides the listed names, spellings are derived by rules: the plural of a medium; "JMW Turner", "J. Turner" and
    "William Turner" for an artist with these first names; "Herring, Jr." with its comma; and the surname of an artist.
    A derived spelling that fits more than one tag is not used.

    Args:
        lists: The names, aliases and stop phrases.
        surnames: When a surname alone counts: always, never, or only next to one of CUES (`cued`).
    """
    tags = _tags_by_name(lists)
    cued = dict(_aliases(lists.cued, tags))
    stopped = {phrase(text) for text in lists.stop}
    known = tags.keys() | stopped
    claims: dict[str, set[Spelling]] = defaultdict(set)
    for name, tag in tags.items():
        for variant, spelling in _variants(name, cued.get(name, tag), known, surnames):
            claims[variant].add(spelling)
    spellings = {variant: next(iter(claimed)) for variant, claimed in claims.items() if len(claimed) == 1}
    spellings |= {name: Spelling(tag) for name, tag in tags.items()}
    for name, tag in cued.items():
        spellings.pop(name, None)
        spellings |= dict(_with_cues(name, tag, (*CUES, POSSESSIVE)))
    for name in stopped:
        spellings.pop(name, None)
    spellings |= {name: Spelling("") for name in stopped if " " in name}
    spellings.pop("", None)
    published = {
        published_form(text): tags[phrase(text)] for listed in reversed([*lists.names.values()]) for text in listed
    }
    return Vocabulary(spellings, {name: tag for name, tag in published.items() if name})


def _tags_by_name(lists: Lists) -> dict[str, str]:
    """Return the tag of each name and alias."""
    tags: dict[str, str] = {}
    for kind, listed in lists.names.items():
        # Of two spellings with the same words, the one with more accents is more likely to be correct.
        for text in sorted(listed, key=lambda text: sum(c.isalpha() and not c.isascii() for c in text), reverse=True):
            tags.setdefault(phrase(text), make_tag(kind, text))
    for line in lists.aliases:  # the line of an alias has the preferred spelling of the name
        name = line.partition(":")[0]
        if tag := tags.get(phrase(name)):
            tags[phrase(name)] = make_tag(tag.partition(":")[0], name)
    tags |= dict(_aliases(lists.aliases, tags))
    for name, tag in list(tags.items()):  # "MC Escher" is "M. C. Escher"
        if (joined := _join_initials(name.split())) != name and joined in tags:
            tags[joined] = tag
    return tags


def _aliases(lines: Sequence[str], tags: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, _, others = line.partition(":")
        if tag := tags.get(phrase(name)):
            yield from ((phrase(other), tag) for other in (others or name).split(","))


def _variants(name: str, tag: str, known: set[str], surnames: Surnames) -> Iterator[tuple[str, Spelling]]:
    """Yield other spellings of one name of a tag. A surname that is also another `known` name is not used alone."""
    if "color" in name:
        yield name.replace("color", "colour"), Spelling(tag)
    if tag.startswith("medium:") and not name.endswith("s"):
        yield f"{name}s", Spelling(tag)
    first_names, surname = _split_surname(name, tag)
    if not tag.startswith("artist:") or not first_names:
        return
    if surname in SUFFIXES:  # "Herring, Jr.", and "Bruegel, the Elder"
        article = first_names[-1] == "the"
        start = first_names[: len(first_names) - article]
        yield " ".join([*start, COMMA, *["the"] * article, surname]), Spelling(tag)
        return
    yield f"{_join_initials(first_names)} {surname}", Spelling(tag)
    if any(len(word) == 1 for word in first_names[1:]) and len(first_names[0]) > 1:
        yield " ".join([*(word for word in first_names if len(word) > 1), surname]), Spelling(tag)
    if surname in known:
        return
    initials = [word[0] for word in first_names]
    for start in {(initials[0],), tuple(initials), tuple(first_names[1:])} - {()}:
        yield f"{' '.join(start)} {surname}", Spelling(tag)
        yield f"{_join_initials(start)} {surname}", Spelling(tag)
    if surnames == "always" or (surnames == "cued" and " " in surname):
        yield surname, Spelling(tag)
    elif surnames == "cued":
        yield from _with_cues(surname, tag, CUES)


def _split_surname(name: str, tag: str) -> tuple[list[str], str]:
    """Return the first names, and the surname with its particles and hyphenated parts."""
    *first_names, surname = name.split()
    if "-" in (last := tag.split()[-1]) and name.endswith(f" {' '.join(words(last))}"):
        surname = " ".join(words(last))
        first_names = name.removesuffix(f" {surname}").split()
    while first_names and first_names[-1] in PARTICLES:
        surname = f"{first_names.pop()} {surname}"
    return first_names, surname


def _join_initials(names: Sequence[str]) -> str:
    """Join consecutive initials into one word: "jmw turner" for "j m w turner"."""
    out = ""
    for before, name in zip(["", *names], names, strict=False):
        out += name if len(before) == 1 == len(name) else f" {name}"
    return out.strip()


def _with_cues(name: str, tag: str, cues: Sequence[tuple[str, str]]) -> Iterator[tuple[str, Spelling]]:
    for before, after in cues:
        yield f"{before}{name}{after}", Spelling(tag, len(before.split()), len(after.split()))
