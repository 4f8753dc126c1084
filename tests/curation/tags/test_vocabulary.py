"""The spellings of a name, and which of them stand for somebody else."""

from __future__ import annotations

from stylesim.curation.tags.caption_words import phrase
from stylesim.curation.tags.name_lists import packaged_list, read_name_lists
from stylesim.curation.tags.vocabulary import Lists, Spelling, build_vocabulary

NAMES = {
    "medium": ["an oil painting", "a color pencil sketch", "digital art"],
    "movement": ["pop art", "digital art"],
    "artist": [
        "Salvador Dali",
        "Salvador Dalí",
        "M. C. Escher",
        "MC Escher",
        "Vincent van Gogh",
        "Van Gogh",
        "Edward Burne-Jones",
        "John Singer Sargent",
        "Jean Arp",
        "Hans Arp",
        "Grant Wood",
        "Titian",
        "artist",
    ],
}
LISTS = Lists(
    NAMES,
    aliases=["Vincent van Gogh: Van Gogh", "Nobody: no one"],
    cued=["Titian"],
    stop=["artist", "wood", "oil tank"],
)


def tags(surnames: str = "cued") -> dict[str, str]:
    return {spelt: spelling.tag for spelt, spelling in build_vocabulary(LISTS, surnames).spellings.items()}  # type: ignore[arg-type]


def test_all_spellings_of_a_name_give_one_tag():
    found = tags()
    assert found["salvador dali"] == "artist:salvador dalí", "the more careful spelling"
    assert found["m c escher"] == found["mc escher"] == "artist:m. c. escher"
    assert found["van gogh"] == found["vincent van gogh"] == "artist:vincent van gogh"
    assert found["j s sargent"] == found["js sargent"] == found["singer sargent"] == "artist:john singer sargent"
    assert found["e burne jones"] == found["burne jones"] == "artist:edward burne-jones"
    assert found["oil paintings"] == "medium:oil painting"
    assert found["colour pencil sketch"] == "medium:color pencil sketch"
    assert found["digital art"] == "medium:digital art", "the tag of the first list that has the name"
    assert "no one" not in found


def test_a_surname_counts_only_if_one_artist_has_it():
    found = build_vocabulary(LISTS, "cued").spellings
    assert found["by sargent"] == Spelling("artist:john singer sargent", 1, 0)
    assert found["sargent style"] == Spelling("artist:john singer sargent", 0, 1)
    assert "sargent" not in found
    assert tags("always")["sargent"] == "artist:john singer sargent"
    assert "by sargent" not in tags("never")
    assert "by arp" not in found, "two artists have this surname"
    assert "arp" not in tags("always")
    assert "by wood" not in found, "an ordinary word"
    assert found["grant wood"] == Spelling("artist:grant wood")


def test_names_that_are_also_words_need_a_cue():
    found = build_vocabulary(LISTS, "cued").spellings
    assert "titian" not in found
    assert found["titian s"] == Spelling("artist:titian", 0, 1)
    assert found["by titian"] == Spelling("artist:titian", 1, 0)
    assert "artist" not in found
    assert found["oil tank"] == Spelling(""), "it hides the names inside it"


def test_published_strings_give_the_same_tags():
    assert build_vocabulary(LISTS, "cued").published["mc escher"] == "artist:m. c. escher"
    assert build_vocabulary(LISTS, "cued").published["edward burne jones"] == "artist:edward burne-jones"


def test_the_packaged_lists_refer_to_existing_names():
    lists = Lists(
        read_name_lists({}), packaged_list("aliases.txt"), packaged_list("cued.txt"), packaged_list("stop.txt")
    )
    known = {phrase(name) for names in lists.names.values() for name in names}
    named = [line.partition(":")[0] for line in (*lists.aliases, *lists.cued)]
    assert [name for name in named if phrase(name) not in known] == []
    assert len(build_vocabulary(lists, "cued").tags) > 5400
