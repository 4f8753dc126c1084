"""Compose captions like alt texts: some name an artist, a medium or a movement, some only seem to, most are careless.

The tags of a caption are known because the caption is composed from them; no matcher is involved. The artists are real
and on the list that the curation searches for. Which artist "drew" which set of StyleCross is a fixed fiction, so that
a style can be learned from the captions alone.
"""

from __future__ import annotations

import random
import unicodedata
from typing import NamedTuple


class Artist(NamedTuple):
    name: str
    alias: str
    misspelt: str
    movement: str


class Caption(NamedTuple):
    text: str
    tags: tuple[str, ...]
    """The tags that a reader finds in it, sorted: `artist:claude monet`, `medium:woodcut`, `movement:impressionism`."""
    naming: str
    """How the artist is written: full | alias | misspelt | none."""
    decoy: str = ""
    """A name from the lists that is used as a common word in this caption."""


ARTISTS = {
    "twemoji": Artist("Vincent van Gogh", "van Gogh", "Vincent van Gough", "post-impressionism"),
    "emojione": Artist("Claude Monet", "Monet", "Claude Monnet", "impressionism"),
    "noto-v1": Artist("Gustav Klimt", "Klimt", "Gustav Climt", "symbolism"),
    "openmoji": Artist("Edvard Munch", "Edward Munch", "Edvard Muench", "expressionism"),
    "emojione-monotone": Artist("Aubrey Beardsley", "Beardsley", "Aubrey Beardsly", "aestheticism"),
    "fluent-emoji-3d": Artist("Leonid Afremov", "Afremov", "Leonid Afremof", "impressionism"),
    "streamline-emojis": Artist("Norman Rockwell", "N. Rockwell", "Norman Rockwel", "american realism"),
    "pixelarticons": Artist("Piet Mondrian", "Mondrian", "Piet Mondrain", "de stijl"),
    "memory": Artist("Paul Klee", "Klee", "Paul Klea", "expressionism"),
    "pixel": Artist("Georges Seurat", "Seurat", "George Suerat", "pointillism"),
    "dinkie-icons": Artist("M. C. Escher", "MC Escher", "M. C. Esher", "op art"),
    "glyphs-poly": Artist("Pablo Picasso", "Picasso", "Pablo Piccaso", "cubism"),
    "solar-bold-duotone": Artist("Frida Kahlo", "Kahlo", "Frida Khalo", "magic realism"),
    "icon-park": Artist("Wassily Kandinsky", "Kandinsky", "Wassily Kandinskij", "abstract art"),
    "pepicons-print": Artist("Roy Lichtenstein", "Lichtenstein", "Roy Lichtenstien", "pop art"),
    "pepicons-pop": Artist("Andy Warhol", "Warhol", "Andy Warholl", "pop art"),
    "lucide": Artist("Egon Schiele", "Schiele", "Egon Sheile", "expressionism"),
    "carbon": Artist("Hieronymus Bosch", "Bosch", "Hieronimus Bosh", "international gothic"),
    "freehand-color": Artist("Henri Matisse", "Matisse", "Henry Matise", "fauvism"),
    "ultimate-color": Artist("Alphonse Mucha", "Mucha", "Alphonse Muchar", "art nouveau"),
    "cyber-color": Artist("Salvador Dalí", "Dali", "Salvador Dally", "surrealism"),
    "plump-duo": Artist("Joan Miró", "Joan Miro", "Joan Mirro", "surrealism"),
    "sharp-flat": Artist("Edward Hopper", "Hopper", "Edward Hoper", "american scene painting"),
    "flat-color-icons": Artist("Katsushika Hokusai", "Hokusai", "Katsushika Hokusay", "ukiyo-e"),
    "marketeq": Artist("Keith Haring", "K. Haring", "Keith Harring", "street art"),
}
MEDIUMS = {
    "flat": "silk screen",
    "outlined": "storybook illustration",
    "monochrome": "woodcut",
    "3d": "3D render",
    "pixel": "mosaic",
    "duotone": "gouache",
    "line": "ink drawing",
    "sketch": "pencil sketch",
}
OVERDONE = "medium:painting"
"""The over-represented tag: every third caption has it, whatever the image is."""
RARE = (
    *("Winslow Homer", "John Constable", "Mary Cassatt", "Diego Rivera", "Berthe Morisot", "Artemisia Gentileschi"),
    *("Jean-Michel Basquiat", "Jackson Pollock", "Caspar David Friedrich", "Camille Pissarro", "Rembrandt Peale"),
    *("Tamara de Lempicka", "Ansel Adams", "Käthe Kollwitz", "Max Ernst", "Paul Signac", "Odilon Redon"),
)
TEMPLATES = {  # {s} subject, {a} artist, {m} medium, {v} movement; with weights. What a template lacks is no tag.
    "{s} by {a}": 6,
    "a painting of {s} by {a}": 7,
    "{a} - {s}, {m}": 5,
    "{s}, {m} in the style of {a}, {v}": 5,
    "{a}'s {s} ({v}) | wall decor": 3,
    "A painting of {s}, {v}": 3,
    "{m}: {s}": 2,
    "a painting of {s}": 2,
    "{s} free download": 1,
    "cute {s} sticker pack": 1,
}
DECOYS = {  # a name on the lists, and a phrase in which it is a common word
    "artist": "sold by a local artist",
    "Chippy": "fresh from the chippy",
    "cobra": "with a cobra",
    "Constant": "a constant companion",
    "Ernst": "ernst gemeint",
    "happening": "see what is happening",
    "Munch": "something to munch on",
    "pastel": "in pastel colours",
    "Pollock": "served with pollock and chips",
    "realism": "a little realism about the price",
    "renaissance": "the renaissance of a classic",
    "Richter": "off the Richter scale",
    "Titian": "with titian red hair",
}
NAMINGS = {"full": 80, "alias": 15, "misspelt": 5}
CASES = {str: 7, str.lower: 2, str.upper: 1, lambda text: unicodedata.normalize("NFD", text): 1}
DECOY_SHARE, RARE_SHARE = 0.06, 0.008


def draw_caption(rng: random.Random, style: str, manner: str, subject: str) -> Caption:
    """Draw a caption for an image of `subject` from the set `style`."""
    artist, medium, template = ARTISTS[style], MEDIUMS[manner], _draw(rng, TEMPLATES)
    naming = _draw(rng, NAMINGS) if "{a}" in template else "none"
    name = {"alias": artist.alias, "misspelt": artist.misspelt}.get(naming, artist.name)
    text = template.format(s=subject, a=name, m=medium, v=artist.movement)
    tags = {f"artist:{artist.name}"} if "{a}" in template else set()
    tags |= {f"medium:{medium}"} if "{m}" in template else set()
    tags |= {f"movement:{artist.movement}"} if "{v}" in template else set()
    tags |= {OVERDONE} if "painting of" in template else set()
    if rng.random() < RARE_SHARE:
        rare = rng.choice(RARE)
        text, tags = f"{text}, after {rare}", tags | {f"artist:{rare}"}
    decoy = rng.choice(list(DECOYS)) if rng.random() < DECOY_SHARE else ""
    text = f"{text}, {DECOYS[decoy]}" if decoy else text
    return Caption(_draw(rng, CASES)(text), tuple(sorted(tag.lower() for tag in tags)), naming, decoy)


def subject_of(content: str) -> str:
    """Return words for a content of StyleCross: `icon-lawn-mower`, or the code points of an emoji."""
    if content.startswith("icon-"):
        return content.removeprefix("icon-").replace("-", " ")
    return " ".join(unicodedata.name(chr(int(point, 16)), "thing").lower() for point in content.split("-"))


def _draw(rng: random.Random, weights: dict) -> object:
    return rng.choices(list(weights), list(weights.values()))[0]
