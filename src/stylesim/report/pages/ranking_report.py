"""Write the page of a ranking: a table that can be sorted, comparisons, content, and typical images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from stylesim.core.images import ImageLike
from stylesim.report.html_page import Section, format_number, render, write_page
from stylesim.report.plots.neighbour_gallery import ShownImage, load_thumbnail
from stylesim.report.plots.score_scale import Distribution, score_scale
from stylesim.report.plots.style_content_plot import known_values, style_content_plot
from stylesim.report.provenance_sections import provenance_sections
from stylesim.scoring.ranking.candidate_ranking import ALPHA, CandidateRanking

FindImages = Callable[[Collection[str]], Mapping[str, ImageLike]]
"""Returns the images with the given ids, as far as they can be found."""

GALLERIES = 40
"""Number of candidates whose images are shown."""
TYPICAL = 5
"""Number of the most, and of the least typical images of a candidate."""
CONTENT = {
    "content_similarity": (
        "content similarity",
        "Cosine of the two images' descriptors; more is better. With CLIP it is CLIP-I.",
        "",
    ),
    "cas": ("CAS ↓", "Content alignment score: difference of feature maps whose channels are standardised.", "DINOv2"),
    "cfsd": ("CFSD ↓", "Content feature structural distance: difference of the similarities of patches.", "VGG19"),
    "lpips": ("LPIPS ↓", "Learned perceptual distance; a new style raises it too.", "VGG16"),
}
"""Title, meaning, and the backbone that the measure was published with."""


class Bar(NamedTuple):
    """A score and its interval on a bar, in percent of its width."""

    low: float
    value: float
    high: float


class Cell(NamedTuple):
    """A cell of the table; `value` is what it is sorted by, empty if it is unknown."""

    text: str
    value: float | str = ""
    note: str = ""
    bar: Bar | None = None


def write_ranking_report(
    run_dir: Path,
    ranking: CandidateRanking,
    find: Mapping[str, FindImages],
    encoder: Mapping[str, Any],
    damaged: Sequence[tuple[str, str]],
) -> Path:
    """Write `ranking.html` into the run folder.

    Args:
        run_dir: Folder of the run.
        ranking: The ranking.
        find: How to find the images of each candidate.
        encoder: Facts about the style encoder.
        damaged: (id, reason) of the images that were left out.
    """
    sections = [Section("Ranking", _table(ranking))]
    if ranking.notes:
        sections.append(Section("Limits", render("ranking_notes.html", notes=ranking.notes)))
    sections.append(Section("Scale", _scale(ranking)))
    if len(ranking.comparisons):
        rows = ranking.comparisons.to_dict("records")
        body = render("ranking_comparisons.html", rows=rows, alpha=ALPHA, encoder=ranking.encoder)
        sections.append(Section("Neighbours compared", body))
    if ranking.content_names:
        sections.append(Section("Style and content", _content(ranking)))
    sections.append(Section("Most and least typical images", _galleries(ranking, find)))
    sections += provenance_sections(run_dir, encoder, damaged)
    return write_page(run_dir / "ranking.html", "Ranking by style", sections, summary=ranking.summary)


def _table(ranking: CandidateRanking) -> Markup:
    table = ranking.table
    marks = _marks(table)
    numbers = [*known_values(table, ("low", "high", "style_similarity")), *(mark["value"] for mark in marks)]
    ends = min(numbers), max(numbers)
    for mark in marks:
        mark["place"] = _place(mark["value"], ends)
    style = ranking.encoder
    columns = [
        {"title": "rank", "by": "", "text": False},
        {"title": "candidate", "by": "", "text": True},
        {"title": "style similarity", "by": style, "text": False},
        {"title": "images", "by": "", "text": False},
        {"title": "comes first", "by": style, "text": False},
        {"title": "distance", "by": style, "text": False},
        {"title": "Vendi score", "by": f"{style}, {ranking.vendi_images:,} images", "text": False},
        {"title": "repeats", "by": style, "text": False},
        {"title": "files of the reference", "by": "", "text": False},
    ]
    if (copies := "copy_encoder" in table) and len(table):
        columns.append({"title": "copies", "by": table["copy_encoder"].iloc[0], "text": False})
    columns += [{"title": CONTENT[name][0], "by": by, "text": False} for name, by in ranking.content_names.items()]
    rows = [{"cells": _cells(row, ranking, ends, bool(copies))} for row in table.to_dict("records")]
    notes = (
        "Comes first: how often the candidate has the highest score when the images are resampled. Distance: 1 minus"
        " the mean cosine of two of its images, with that of the works below. Vendi score: the effective number of"
        " different images, at the same number of images for all. Repeats: images whose descriptor another one has too."
    )
    return render("ranking_table.html", columns=columns, rows=rows, marks=marks, notes=notes)


def _cells(row: Mapping[Any, Any], ranking: CandidateRanking, ends: tuple[float, float], copies: bool) -> list[Cell]:
    score, low, high = row["style_similarity"], row["low"], row["high"]
    known = low == low
    bar = Bar(*(_place(x if known else score, ends) for x in (low, score, high)))
    interval = f"{format_number(low)} to {format_number(high)}" if known else "no interval: one image"
    cells = [
        Cell(str(row["rank"]), row["rank"]),
        Cell(row["candidate"], row["candidate"], "collapsed" if row["collapsed"] else ""),
        Cell(format_number(score), score, interval, bar),
        Cell(f"{row['images']:,}", row["images"]),
        _share(row["first"]),
        _number(row["distance"], f"works {_text(row['works_distance'])}"),
        _number(row["vendi"], f"works {_text(row['works_vendi'], '.1f')}", ".1f"),
        _share(row["repeats"]),
        _share(row["in_reference"]),
    ]
    if copies:
        cells.append(_share(row["copy_rate"]))
    cells += [_number(row[name], f"other {_text(row[f'{name}_mismatched'])}") for name in ranking.content_names]
    return cells


def _marks(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the similarities of works to each other that the bars show."""
    titles = {"same": "works of the same style", "different": "works of other styles", "others": "works to each other"}
    values = {name: float(table[f"works_{name}"].iloc[0]) for name in titles}
    names = ["different", "same"] if values["different"] == values["different"] else ["others"]
    return [{"name": n, "title": titles[n], "value": values[n]} for n in names if values[n] == values[n]]


def _place(value: float, ends: tuple[float, float]) -> float:
    """Return where a similarity lies on a bar, in percent; the ends of the scale keep a margin."""
    width = ends[1] - ends[0]
    return 50.0 if width <= 0 else float(np.clip(5 + 90 * (value - ends[0]) / width, 0, 100))


def _text(value: float, spec: str = ".3f") -> str:
    return format_number(value, spec) if value == value else "–"


def _number(value: float, note: str = "", spec: str = ".3f") -> Cell:
    return Cell(_text(value, spec), value if value == value else "", note)


def _share(value: float) -> Cell:
    return _number(value, spec=".0%")


def _scale(ranking: CandidateRanking) -> Markup:
    """Draw the best candidate beside the similarities of the works to each other."""
    same, different, others = ranking.reference_similarities
    shown = [
        Distribution("Works, other styles", different, "--soft"),
        Distribution("Works, same style", same, "--correct"),
    ]
    if not len(different):
        shown = [Distribution("Works to each other", others, "--ink")]
    best = ranking.table.iloc[0]
    images = ranking.per_image.loc[ranking.per_image["candidate"] == best["candidate"], "style_similarity"]
    shown.append(Distribution(f"1. {best['candidate'][-24:]}", images.to_numpy(), "--accent"))
    interval = None if best["low"] != best["low"] else (float(best["low"]), float(best["high"]))
    return score_scale(shown, float(best["style_similarity"]), interval)


def _content(ranking: CandidateRanking) -> Markup:
    measures = []
    for name, by in ranking.content_names.items():
        title, meaning, published = CONTENT[name]
        stand_in = published and published.lower() not in by.lower()
        words = (
            f"By {by}, which stands in for {published}: not comparable with published values."
            if stand_in
            else f"By {by}."
        )
        measures.append({"title": title, "meaning": meaning, "by": words})
    plot = style_content_plot(ranking.table, ranking.encoder, ranking.content_names["content_similarity"])
    return render("ranking_content.html", measures=measures, plot=plot)


def _galleries(ranking: CandidateRanking, find: Mapping[str, FindImages]) -> Markup:
    candidates = []
    for row in ranking.table.head(GALLERIES).to_dict("records"):
        images = pd.DataFrame(ranking.per_image[ranking.per_image["candidate"] == row["candidate"]])
        few = len(images) <= 2 * TYPICAL
        most = images if few else images.head(TYPICAL)
        least = images.tail(0 if few else TYPICAL).iloc[::-1]
        found = find[row["candidate"]]({*most["id"], *least["id"]})
        shown = {"most": _shown(most, found), "least": _shown(least, found)}
        candidates.append(
            {"name": row["candidate"], "rank": row["rank"], "similarity": row["style_similarity"], **shown}
        )
    hidden = len(ranking.table) - len(candidates)
    return render("ranking_gallery.html", candidates=candidates, hidden=hidden, encoder=ranking.encoder)


def _shown(images: pd.DataFrame, found: Mapping[str, ImageLike]) -> list[ShownImage]:
    return [
        ShownImage(row["id"], row["name"], load_thumbnail(found.get(row["id"])), row["style_similarity"])
        for row in images.to_dict("records")
    ]
