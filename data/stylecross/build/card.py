"""Write the data card and the contact sheet."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from features import Table
from PIL import Image, ImageDraw
from render import CANVAS, Rasters
from rules import COMMON, INDISTINCT, LEAST, REDRAW, TWINS, Verdict
from sources import PACKAGES, rank
from splits import SPLITS, Split
from styles import FLUENT_3D, Style

COLUMNS, LABEL = 14, 190  # images in a row, pixels for the name of the style
TEMPLATE = Template(Path(__file__).with_name("card.md").read_text())


def style_info(styles: list[Style], sets: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return title, author, source and licence of every style, as its package states them."""
    infos = {}
    for style in styles:
        if style.source == FLUENT_3D:
            info = sets["fluent-emoji-flat"]["info"] | {"name": "Fluent Emoji 3D"}
        else:
            info = sets[style.source]["info"]
        licence, author = info["license"], info["author"]
        infos[style.name] = {
            "title": info["name"], "author": author["name"], "url": author.get("url", ""),
            "licence": licence.get("spdx", licence["title"]), "licence_url": licence.get("url", ""),
        }  # fmt: skip
    return infos


def write_card(
    folder: Path,
    styles: list[Style],
    splits: dict[str, Split],
    infos: dict[str, dict[str, str]],
    measured: dict[str, list[Verdict]],
    twins: int,
    scarce: dict[str, int],
    comparison: dict[str, Table],
    digest: str,
) -> None:
    """Fill `card.md` with the results of this build."""
    counts = {split: Counter(style.name for style, _ in members) for split, members in splits.items()}
    unseen = {style.name for style, _ in splits["unseen_styles"]}
    size = sum(path.stat().st_size for split in SPLITS for path in (folder / split).iterdir())
    rows = {
        "sets": [
            f"| `{s.name}` | {'**' + s.family + '**' if s.name in unseen else s.family} | {s.manner} | "
            + " | ".join(str(counts[split][s.name] or "") for split in SPLITS)
            + " |"
            for s in styles
        ],
        "totals": [" | ".join(f"{len(splits[split]):,}" for split in SPLITS)],
        "credits": [
            f"| `{style}` | {link(i['title'], i['url'])} | {i['author']} | {link(i['licence'], i['licence_url'])} |"
            for style, i in infos.items()
        ],
        "redraws": verdict_rows(measured["redraw"]),
        "indistinct": verdict_rows(measured["indistinct"]),
        "scarce": [f"`{name}` ({count})" for name, count in scarce.items()],
        "comparison": [
            f"| {kind} | {encoder} | " + " | ".join("" if np.isnan(v) else f"{v:.3f}" for v in values) + " |"
            for kind, table in comparison.items()
            for encoder, values in table.items()
        ],
        "packages": [f"- `{name}`, sha256 `{sha}`" for name, sha in PACKAGES.items()],
    }
    filled = {key: ", ".join(lines) if key == "scarce" else "\n".join(lines) for key, lines in rows.items()}
    contents = {split: len({content for _, content in members}) for split, members in splits.items()}
    text = TEMPLATE.substitute(
        filled, digest=digest, megabytes=f"{size / 1e6:.1f}", styles=len(styles), twins=twins,
        families=len({s.family for s in styles}), images=f"{sum(map(len, splits.values())):,}",
        unseen=", ".join(sorted({s.family for s, _ in splits["unseen_styles"]})),
        trained=len(styles) - len(unseen), REDRAW=REDRAW, INDISTINCT=INDISTINCT, TWINS=TWINS, COMMON=COMMON,
        LEAST=LEAST, **{f"contents_{split}": count for split, count in contents.items()},
    )  # fmt: skip
    (folder / "README.md").write_text(text)


def link(text: str, url: str) -> str:
    return f"[{text}]({url})" if url else text


def verdict_rows(verdicts: list[Verdict], most: int = 12) -> list[str]:
    """Return rows for the pairs that lost a style (all of them) and the nearest that did not, usually `most` in all."""
    lost = [v for v in verdicts if v.dropped]
    alive = [v for v in verdicts if not {v.first, v.second} & {gone.dropped for gone in lost}]
    return [
        f"| {v.first} | {v.second} | {v.measured:.3f} | {v.dropped or ''} |"
        for v in lost + alive[: max(3, most - len(lost))]
    ]


def contact_sheet(path: Path, styles: list[Style], splits: dict[str, Split], rasters: Rasters) -> None:
    """Draw a row of test contents for each style; a column is one content where the style draws it."""
    tested = [*splits["unseen_contents"], *splits["unseen_styles"]]
    unseen = {style.name for style, _ in splits["unseen_styles"]}
    sheet = Image.new("RGB", (LABEL + COLUMNS * CANVAS, len(styles) * CANVAS), "white")
    draw = ImageDraw.Draw(sheet)
    counts = {kind: Counter(c for s, c in tested if s.emoji == kind) for kind in (True, False)}
    for row, style in enumerate(styles):
        common = counts[style.emoji]
        top = sorted(common, key=lambda content: (-common[content], rank(content)))[:COLUMNS]
        own = {content for other, content in tested if other.name == style.name}
        spare = iter(sorted(own - set(top), key=lambda content: (-common[content], rank(content))))
        draw.text((4, row * CANVAS + 30), f"{style.name}\n{style.manner}", fill="black")
        if style.name in unseen:
            draw.text((4, row * CANVAS + 58), "unseen", fill="red")
        for column, content in enumerate(top):
            content = content if content in own else next(spare, None)
            if content:
                raster = Image.fromarray(rasters[style.name][content])
                sheet.paste(raster, (LABEL + column * CANVAS, row * CANVAS))
    sheet.save(path, "webp", quality=80, method=6)
