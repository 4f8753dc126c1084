"""Write the page of a style score: the score on the scale of its corpus, and the images behind it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from stylesim.core.images import ImageLike
from stylesim.report.html_page import Section, format_number, render, write_page
from stylesim.report.plots.neighbour_gallery import NeighbourRow, ShownImage, load_thumbnail
from stylesim.report.plots.score_scale import Distribution, score_scale
from stylesim.report.provenance_sections import provenance_sections
from stylesim.report.tables.metrics_table import MetricsTable
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.style_score import StyleScore

FindImages = Callable[[Collection[str]], Mapping[str, ImageLike]]
"""A function that returns the images with the given ids; images that it cannot find are left out."""

SHOWN = 36
"""The most generated images on the page. If there are more, they are evenly spaced over the ranking."""

NEIGHBOURS = 10
"""The number of most similar reference works beside each generated image."""

COPIES = 100
"""Number of images on both sides that the page lists; score.json has all."""

VARIANTS = {
    "gss": ("mean of ⟨g, r̄⟩", "General Style Similarity: each image with the prototype r̄, the mean of the works"),
    "gss_of_means": ("⟨ḡ, r̄⟩", "the two mean descriptors; equals gss, since neither mean is renormalised"),
    "gss_unit_prototype": (
        "mean of ⟨g, r̄ / |r̄|⟩",
        "the prototype renormalised; varied works do not lower it",
    ),
    "gss_renormalised": ("⟨ḡ / |ḡ|, r̄ / |r̄|⟩", "both means renormalised; varied images or works do not lower it"),
    "csls": (
        "mean of 2⟨g, r⟩ − near(g) − near(r)",
        "CSLS: corrected by the mean similarities to the nearest images",
    ),
}

LABEL_COLUMNS = {
    "label": "label",
    "generated": "images",
    "works": "works",
    "gss": "gss",
    "own_works": "own works",
    "other": "nearest other label",
    "other_gss": "gss with it",
    "discrimination": "own − other",
    "discrimination_csls": "by CSLS",
}
"""Columns of `StyleScore.per_label`, and their headings on the page."""


def write_score_report(
    run_dir: Path, score: StyleScore, sets: Mapping[str, DescriptorSet], find: Mapping[str, FindImages]
) -> Path:
    """Write `score.html` into the run folder.

    Args:
        run_dir: Folder of the run.
        score: The scores.
        sets: The compared descriptors, `generated` and `reference`.
        find: A function for each set that finds its images by id.

    Returns:
        The path of the page.
    """
    sections = [Section("Score", _scale(score) + _readings(score))]
    if len(score.per_label):
        sections.append(Section("Labels", _labels(score)))
    if len(score.copies):
        rows, note = score.copies.head(COPIES).to_dict("records"), copies_note(score)
        sections.append(Section("Images on both sides", render("score_copies.html", note=note, rows=rows)))
    sections.append(Section("Images and their most similar works", _gallery(score, find)))
    encoder = next(iter(sets.values())).meta.get("encoder", {})
    damaged = [pair for images in sets.values() for pair in images.damaged]
    sections += provenance_sections(run_dir, encoder, damaged)
    return write_page(run_dir / "score.html", "Style similarity", sections, summary=summary(score, sets))


def summary(score: StyleScore, sets: Mapping[str, DescriptorSet]) -> str:
    """Return the result in a few sentences of plain text."""
    count, works = len(set(score.per_image["id"])), len(sets["reference"])
    images = "The generated image has" if count == 1 else f"The {count:,} generated images have"
    reference = "the only reference work" if works == 1 else f"the {works:,} reference works"
    reference = "the reference works of the same label" if score.labels_matched else reference
    interval = score.intervals.get("gss")
    bounds = f" (95 % interval {format_number(interval[0])} to {format_number(interval[1])})" if interval else ""
    text = f"{images} a style similarity of {format_number(score.metrics['gss'])} to {reference}{bounds}."
    same, different, others = score.reference_similarities
    if not score.labels_matched and len(others):
        text += (
            f" For comparison, the similarity of the reference works to each other is {format_number(others.mean())}."
        )
    if len(same) and (score.labels_matched or len(different)):
        text += f" For comparison, reference works have a similarity of {format_number(same.mean())} to other works of"
        text += " the same label"
        text += f" and {format_number(different.mean())} to works of other labels." if len(different) else "."
    if score.unmatched_labels:
        text += f" Not scored, because no work has their label: {', '.join(score.unmatched_labels[:8])}."
    return f"{text}{_summarise_labels(score)} {copies_note(score)}".strip()


def copies_note(score: StyleScore) -> str:
    """Return in a sentence how many images stand on both sides, and what was done about it; "" if none does."""
    count = len(set(score.copies["generated"]))
    if not count:
        return ""
    images = "1 generated image is" if count == 1 else f"{count:,} generated images are"
    if score.copies_counted:
        return f"{images} also among the works, and compared with their own copies as well, which raises the score."
    return (
        f"{images} also among the works, and compared with the other works only; keep_copies=true compares them with"
        " their own copies as well."
    )


def _summarise_labels(score: StyleScore) -> str:
    lines = score.per_label.to_dict("records")
    if not score.labels_matched and len(lines) > 1:
        return (
            " The generated images share no label with the works, so they were compared with all works together;"
            f" the most similar single label is {lines[0]['label']}, with {format_number(lines[0]['gss'])}."
        )
    if "discrimination" not in score.per_label:
        return ""
    raw, csls = (sum(line[name] < 0 for line in lines) for name in ("discrimination", "discrimination_csls"))
    return (
        f" For {raw} of {len(lines)} labels the images are more similar to the works of another label than to those of"
        f" their own ({csls} by CSLS)."
    )


def _scale(score: StyleScore) -> Markup:
    """Draw the score beside the scores of single images and of the works themselves."""
    same, different, others = score.reference_similarities
    distributions = []
    if score.labels_matched or len(different):
        distributions.append(Distribution("Works and other labels", different, "--soft"))
        distributions.append(Distribution("Works of one label", same, "--correct"))
    if not score.labels_matched:
        distributions.append(Distribution("Works and other works", others, "--ink"))
    distributions.append(Distribution("Generated images", score.per_image["gss"].to_numpy(), "--accent"))
    return score_scale(distributions, score.metrics["gss"], score.intervals.get("gss"))


def _readings(score: StyleScore) -> Markup:
    readings = [
        {
            "name": name,
            "value": score.metrics[name],
            "interval": score.intervals.get(name),
            "formula": formula,
            "meaning": meaning,
        }
        for name, (formula, meaning) in VARIANTS.items()
    ]
    return render("score_readings.html", readings=readings)


def _labels(score: StyleScore) -> Markup:
    """Return the table of labels: the score, the similarity of the label's own works, the most similar other label."""
    rows = [
        {LABEL_COLUMNS[name]: value for name, value in line.items() if name in LABEL_COLUMNS and value == value}
        for line in score.per_label.to_dict("records")  # value == value leaves out NaN
    ]
    columns = [heading for name, heading in LABEL_COLUMNS.items() if any(heading in row for row in rows)]
    table = render("metrics_table.html", table=MetricsTable(rows, columns=columns, unranked=("*",)))
    return render("score_labels.html", table=table, matched=score.labels_matched)


def _gallery(score: StyleScore, find: Mapping[str, FindImages]) -> Markup:
    count = len(score.per_image)
    chosen = np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int)
    images = score.per_image.take(chosen).to_dict("records")
    nearest: dict[str, list[dict[Any, Any]]] = {image["id"]: [] for image in images}
    pairs = score.pairs
    shown = pairs["generated"].isin(list(nearest)) & (pairs["rank"] <= NEIGHBOURS)
    for pair in pairs.loc[shown].to_dict("records"):
        nearest[pair["generated"]].append(pair)
    found = {
        "generated": find["generated"](set(nearest)),
        "reference": find["reference"]({pair["reference"] for pairs in nearest.values() for pair in pairs}),
    }
    rows = []
    for image in images:
        label = image["label"] if score.labels_matched else None
        thumbnail = load_thumbnail(found["generated"].get(image["id"]))
        query = ShownImage(image["id"], label or Path(image["id"]).stem, thumbnail, image["gss"])
        neighbours = [_reference_work(pair, found["reference"], label) for pair in nearest[image["id"]]]
        rows.append(NeighbourRow(query, neighbours))
    neighbours = render("neighbours.html", rows=rows)
    return render(
        "score_gallery.html", neighbours=neighbours, count=count, shown=len(rows), matched=score.labels_matched
    )


def _reference_work(pair: Mapping[Any, Any], found: Mapping[str, ImageLike], label: str | None) -> ShownImage:
    """Return a reference work. It is correct if it has the label of the generated image; None if there is no label."""
    id, labels = pair["reference"], pair["reference_label"]
    correct = None if label is None else label in labels.split("|")
    return ShownImage(id, labels or Path(id).stem, load_thumbnail(found.get(id)), pair["similarity"], correct)
