"""Write the page of an attribution: a verdict for each image, its copy check, and how far both can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image, ImageDraw

from stylesim.core.errors import CorruptSampleError
from stylesim.core.images import ImageLike, open_image
from stylesim.report.html_page import Section, render, write_page
from stylesim.report.plots.neighbour_gallery import load_thumbnail
from stylesim.report.plots.reliability_plot import reliability_plot
from stylesim.report.provenance_sections import provenance_sections
from stylesim.report.tables.attribution_tables import Facts
from stylesim.report.tables.metrics_table import MetricsTable
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.attribution.attribution import Attribution
from stylesim.scoring.copies.copy_check import CopyCheck
from stylesim.scoring.copies.joint_reading import NOT_LEGAL, read_together

FindImages = Callable[[Collection[str]], Mapping[str, ImageLike]]
"""Returns the images with the given ids, as far as they can be found."""

SHOWN = 24
"""Number of images shown with their ranking; the table below lists more."""
LISTED = 500
"""Number of images in that table; attribution.csv has all."""
COPY_SIDE = 280
"""Longer side in pixels of the images of a pair."""
FRAME = (200, 55, 45)


class BarScale(NamedTuple):
    """Where scores lie on the bars of an image's ranking."""

    low: float
    high: float

    def place(self, score: float) -> float:
        """Return where a score lies, in percent of the bar."""
        return float(np.clip(100 * (score - self.low) / (self.high - self.low), 0, 100))


def write_attribution_report(
    run_dir: Path,
    attribution: Attribution,
    copies: CopyCheck | str,
    sets: Mapping[str, DescriptorSet],
    find: Mapping[str, FindImages],
    facts: Facts,
) -> Path:
    """Write `attribution.html` into the run folder.

    Args:
        run_dir: Folder of the run.
        attribution: The attributions.
        copies: The copy check, or why it is not available.
        sets: The descriptors, `queries` and `gallery`.
        find: How to find the images of either set.
        facts: What is known about the works.
    """
    sections = [Section("Images", _images(attribution, copies, find, facts))]
    if len(attribution.verdicts) > SHOWN:
        sections.append(Section("All images", _all_images(attribution, copies), folded=True))
    sections += [
        Section("How far to trust the verdicts", _trust(attribution)),
        Section("Copy check", render("copy_check.html", copies=copies, available=isinstance(copies, CopyCheck))),
        Section("Labels", _labels(attribution), folded=len(attribution.per_label) > 30),
    ]
    encoder = sets["gallery"].meta.get("encoder") or {}
    damaged = [pair for images in sets.values() for pair in images.damaged]
    sections += provenance_sections(run_dir, encoder, damaged)
    summary = "\n".join([attribution.counts, *attribution.notes])
    return write_page(run_dir / "attribution.html", "Attribution of style", sections, summary=summary)


def _images(attribution: Attribution, copies: CopyCheck | str, find: Mapping[str, FindImages], facts: Facts) -> Markup:
    shown = choose_shown(attribution, copies)
    copy_rows = copies.rows() if isinstance(copies, CopyCheck) else {}
    table = attribution.table[attribution.table["query"].isin(shown)]
    copied = {copy_rows[id]["copied"] for id in shown if id in copy_rows}
    works = {*table["nearest"], *(id for id in copied if isinstance(id, str))}
    found = {"queries": find["queries"](set(shown)), "gallery": find["gallery"](works)}
    verdicts = {row["query"]: row for row in attribution.verdicts.to_dict("records")}
    cards = []
    for id in shown:
        copy = copy_rows.get(id)
        card = {
            "verdict": verdicts[id],
            "name": id.partition("/")[2] or id,
            "image": load_thumbnail(found["queries"].get(id)),
            "labels": _label_rows(pd.DataFrame(table[table["query"] == id]), found["gallery"]),
            "reading": read_together(verdicts[id]["verdict"], None if copy is None else copy["flag"]),
            "pair": None if copy is None else _pair(copy, found, facts),
        }
        cards.append(card)
    return render("attribution_images.html", cards=cards, count=len(verdicts), available=isinstance(copies, CopyCheck))


def choose_shown(attribution: Attribution, copies: CopyCheck | str) -> list[str]:
    """Choose the images to show: those flagged as copies first, then each kind of verdict in turn, surest first."""
    verdicts = attribution.verdicts.assign(order=range(len(attribution.verdicts)))
    flagged: list[str] = []
    if isinstance(copies, CopyCheck):
        suspects = copies.table.query("flag != 'none'").sort_values("copy_similarity", ascending=False)
        flagged = suspects["query"].tolist()[: SHOWN // 2]
    if len(verdicts) <= SHOWN:
        return [*flagged, *(id for id in verdicts["query"] if id not in set(flagged))]
    ranked = verdicts.sort_values("p_value", kind="stable")
    ranked["turn"] = ranked.groupby("verdict").cumcount()
    chosen = [id for id in ranked.sort_values("turn", kind="stable")["query"] if id not in set(flagged)]
    kinds = ["attributed", "ambiguous", "none"]
    rest = pd.DataFrame(verdicts[verdicts["query"].isin(chosen[: SHOWN - len(flagged)])])
    rest = rest.assign(kind=[kinds.index(kind) for kind in rest["verdict"]]).sort_values(["kind", "order"])
    return [*flagged, *rest["query"]]


def _label_rows(table: pd.DataFrame, found: Mapping[str, ImageLike]) -> list[dict[str, Any]]:
    scores = table["score"].to_numpy()
    pad = max(0.6 * float(np.ptp(scores)), 0.05)
    scale = BarScale(float(scores.min()) - pad, float(scores.max()) + pad)
    rows = []
    for row in table.to_dict("records"):
        known = bool(np.isfinite(row["low"]))
        bar = {"at": scale.place(row["score"]), "left": 0.0, "right": 100.0}
        bar |= {"left": scale.place(row["low"]), "right": scale.place(row["high"])} if known else {}
        rows.append(row | {"bar": bar, "has_interval": known, "image": load_thumbnail(found.get(row["nearest"]))})
    return rows


def _pair(copy: dict[str, Any], found: Mapping[str, Mapping[str, ImageLike]], facts: Facts) -> dict[str, Any]:
    """Return what the page shows of a copy check: both images side by side, with the matching part framed."""
    by_tile = copy["copied"] == copy["tile_match"] and copy["copy_similarity"] == copy["tile_similarity"]
    box = tuple(copy[edge] for edge in ("left", "top", "right", "bottom")) if by_tile else None
    frames = {"image": box if copy["tile_of"] == "image" else None, "work": box if copy["tile_of"] == "work" else None}
    known = dict(facts.get(copy["copied"], {}))
    url = known.get("url", "")
    return copy | {
        "by_tile": by_tile,
        "percentile_shown": copy["tile_percentile"] if by_tile else copy["percentile"],
        "query_image": framed(found["queries"].get(copy["query"]), frames["image"]),
        "work_image": framed(found["gallery"].get(copy["copied"]), frames["work"]),
        "facts": {name: known[name] for name in ("title", "author", "licence") if name in known},
        "url": url,
        "link": url.startswith(("https://", "http://")),  # never a javascript: link from somebody's table
    }


def framed(source: ImageLike | None, box: tuple[float, ...] | None) -> Image.Image | None:
    """Open an image, at most COPY_SIDE pixels wide and high, with a frame around a part of it."""
    try:
        image = None if source is None else open_image(source, short_side=COPY_SIDE)
    except CorruptSampleError:
        return None
    if image is None:
        return None
    scale = COPY_SIDE / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    if box is not None:
        left, top, right, bottom = box
        edges = (left * image.width, top * image.height, right * image.width - 1, bottom * image.height - 1)
        ImageDraw.Draw(image).rectangle(edges, outline=FRAME, width=4)
    return image


def _all_images(attribution: Attribution, copies: CopyCheck | str) -> Markup:
    copy_rows = copies.rows() if isinstance(copies, CopyCheck) else {}
    best = attribution.table[attribution.table["rank"] == 1].set_index("query")
    rows = [
        verdict
        | {"best": best.loc[verdict["query"], "label"], "copy": copy_rows.get(verdict["query"], {}).get("flag", "")}
        for verdict in attribution.verdicts.head(LISTED).to_dict("records")
    ]
    return render("attribution_list.html", rows=rows, count=len(attribution.verdicts))


def _trust(attribution: Attribution) -> Markup:
    calibration = attribution.calibration
    plot = reliability_plot(calibration.reliability) if calibration.model is not None else None
    return render(
        "attribution_trust.html",
        plot=plot,
        calibration=calibration,
        works=int(calibration.leave_one_out.closed.sum()),
        gaps=attribution.gaps,
        legal=NOT_LEGAL,
        rule=attribution.rule,
        settings=attribution.settings,
    )


def _labels(attribution: Attribution) -> Markup:
    headings = {
        "label": "label",
        "works": "works",
        "attributed": "left out",
        "recall": "recall",
        "precision": "precision",
    }
    rows = [
        {headings[name]: value for name, value in row.items() if value == value}  # without NaN
        for row in attribution.per_label.to_dict("records")
    ]
    return render(
        "attribution_labels.html", table=render("metrics_table.html", table=MetricsTable(rows, unranked=("*",)))
    )
