"""Build StyleCross: `python data/stylecross/build ICONIFY.tgz FLUENT_3D.tgz [--out data/stylecross]`.

Get the two packages with `npm pack @iconify/json@2.2.535` and `npm pack @lobehub/fluent-emoji-3d@1.1.0`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from card import contact_sheet, style_info, write_card
from features import compare, probe_features
from render import Rasters, render_all
from rules import LEAST, indistinct, redraws, twins
from shards import digest, write_splits
from sources import collect, read_packages
from splits import divide, part
from styles import STYLES

from stylesim.core.errors import StylesimError


def build(iconify: Path, fluent_3d: Path, out: Path, processes: int) -> str:
    """Render, apply the rules, write shards, card and contact sheet to `out`; return the digest of the shards."""
    sets, three_d = read_packages(iconify, fluent_3d, STYLES)
    rasters = render_all(collect(sets, three_d, STYLES), processes)

    redrawn = redraws(rasters)
    rasters = without(rasters, {verdict.dropped for verdict in redrawn})
    doubled = twins(rasters)
    rasters = {s: {c: p for c, p in drawn.items() if c not in doubled} for s, drawn in rasters.items()}
    scarce = {style: len(drawn) for style, drawn in rasters.items() if len(drawn) < LEAST}
    rasters = without(rasters, set(scarce))
    alike = indistinct(rasters, probe_features(rasters))
    rasters = without(rasters, {verdict.dropped for verdict in alike})

    styles = [style for style in STYLES if style.name in rasters]
    splits = divide(styles, rasters)
    infos = style_info(styles, sets)
    write_splits(out, splits, rasters, infos, processes)
    tested = [
        (style, content, raster)
        for style in styles
        for content, raster in rasters[style.name].items()
        if part(content) == "test"
    ]
    measured = {"redraw": redrawn, "indistinct": alike}
    found = digest(out)
    write_card(out, styles, splits, infos, measured, len(doubled), scarce, compare(tested), found)
    contact_sheet(out / "contact_sheet.webp", styles, splits, rasters)
    return found


def without(rasters: Rasters, dropped: set[str] | set[str | None]) -> Rasters:
    """Return the images without those of the dropped styles."""
    return {style: drawn for style, drawn in rasters.items() if style not in dropped}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("iconify", type=Path)
    parser.add_argument("fluent_3d", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    try:
        print(build(args.iconify, args.fluent_3d, args.out, args.processes))
    except StylesimError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
