"""The page of a style score: the number on the scale of its own corpus, and the pictures behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from stylesim.core.errors import StylesimError
from stylesim.core.images import ImageLike, open_image
from stylesim.report.html_page import Section, code_html, damaged_html, facts_html, write_report
from stylesim.report.metrics_table import MetricsTable
from stylesim.report.neighbour_gallery import THUMBNAIL, NeighbourRow, ShownImage, gallery_html
from stylesim.report.score_scale import Distribution, format_number, scale_html
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.style_score import StyleScore

Find = Callable[[Collection[str]], Mapping[str, ImageLike]]
"""From the ids that are shown to those images that can be found."""

SHOWN = 36
"""Generations on the page: all, or so many evenly spaced over the ranking."""

WORKS = 10
"""Nearest works beside each."""

FORMULAS = {
    "gss": ("mean of ⟨g, r̄⟩", "General Style Similarity: each generation with the prototype r̄, the mean of the works"),
    "gss_of_means": ("⟨ḡ, r̄⟩", "the two mean descriptors: the same number, since neither mean is renormalised"),
    "gss_unit_prototype": ("mean of ⟨g, r̄ / |r̄|⟩", "the prototype renormalised: does not fall where the works vary"),
    "gss_renormalised": ("⟨ḡ / |ḡ|, r̄ / |r̄|⟩", "both means renormalised: falls for the variety of neither set"),
    "csls": ("mean of 2⟨g, r⟩ − near(g) − near(r)", "CSLS: less the mean similarity to the nearest on either side"),
}


def write_score_report(
    run_dir: Path, style_score: StyleScore, sets: Mapping[str, DescriptorSet], find: Mapping[str, Find]
) -> Path:
    """Write `score.html` into the run folder; `sets` and `find` are by side, `generated` and `reference`."""
    sections = [Section("Score", _scale(style_score) + _readings(style_score))]
    if len(style_score.per_label):
        sections.append(Section("Labels", labels_html(style_score)))
    sections.append(Section("Images and their nearest works", _gallery(style_score, find)))
    sections += _about(run_dir, sets)
    return write_report(run_dir / "score.html", "Style similarity", sections, summary=summary(style_score, sets))


def summary(style_score: StyleScore, sets: Mapping[str, DescriptorSet]) -> str:
    """The result in a few sentences of plain text."""
    count, works = len(set(style_score.per_image["id"])), len(sets["reference"])
    who = "1 generated image resembles" if count == 1 else f"{count:,} generated images resemble"
    whom = "the one work" if works == 1 else f"the {works:,} works"
    whom = "the works of their own labels" if style_score.labels_matched else whom
    interval = style_score.intervals.get("gss")
    between = f" (95 %: {format_number(interval[0])} to {format_number(interval[1])})" if interval else ""
    text = f"{who} {whom} at {format_number(style_score.metrics['gss'])}{between}."
    same, different, others = style_score.reference_similarities
    if not style_score.labels_matched and len(others):
        text += f" The works resemble each other at {format_number(others.mean())}."
    if len(same) and (style_score.labels_matched or len(different)):
        text += f" Works resemble others of their label at {format_number(same.mean())}"
        text += f", those of other labels at {format_number(different.mean())}." if len(different) else "."
    if style_score.unmatched_labels:
        text += f" Not scored, for no work has their label: {', '.join(style_score.unmatched_labels[:8])}."
    return text + _of_labels(style_score)


def _of_labels(style_score: StyleScore) -> str:
    lines = style_score.per_label.to_dict("records")
    if not style_score.labels_matched and len(lines) > 1:
        return (
            " The generated images have none of the works' labels, so all works were taken as one; of the single labels"
            f" {lines[0]['label']} is the nearest, at {format_number(lines[0]['gss'])}."
        )
    if "discrimination" not in style_score.per_label:
        return ""
    raw, csls = (sum(line[name] < 0 for line in lines) for name in ("discrimination", "discrimination_csls"))
    return f" {raw} of {len(lines)} labels resemble the works of another label more than their own ({csls} by CSLS)."


def _scale(style_score: StyleScore) -> str:
    """The pooled number over what generations and works score one by one."""
    same, different, others = style_score.reference_similarities
    labelled = [
        Distribution("Works and other labels", different, "--soft"),
        Distribution("Works of one label", same, "--right"),
    ]
    ridges = labelled if style_score.labels_matched or len(different) else []
    if not style_score.labels_matched:
        ridges.append(Distribution("Works among each other", others, "--ink"))
    ridges.append(Distribution("Generated images", style_score.per_image["gss"].to_numpy(), "--accent"))
    return scale_html(ridges, style_score.metrics["gss"], style_score.intervals.get("gss"))


def _readings(style_score: StyleScore) -> str:
    """The same score read in five ways, and what each means."""
    lines = []
    for name, (formula, words) in FORMULAS.items():
        interval = style_score.intervals.get(name)
        between = f"{format_number(interval[0])} – {format_number(interval[1])}" if interval else ""
        cells = (f"<strong>{format_number(style_score.metrics[name])}</strong>", between, formula)
        cells = "".join(f'<td style="white-space:nowrap">{cell}</td>' for cell in cells)
        lines.append(f"<tr><th>{name}</th>{cells}<td style='min-width:17rem'>{words}</td></tr>")
    return (
        f'<h3>The same in other readings</h3><div class="wide"><table class="plain">{"".join(lines)}</table></div>'
        '<p class="note">g is the descriptor of a generated image, r of a work, ⟨ , ⟩ their inner product. Intervals:'
        " 95 %, by a bootstrap over the generated images. How much a number says depends on the encoder and the"
        " works: read it beside what the works score among themselves (each with the mean of the <em>others</em>).</p>"
    )


def labels_html(style_score: StyleScore) -> str:
    """Every label: its score beside what its own works reach, and the best other label."""
    names = {
        "label": "label",
        "generated": "images",
        "works": "works",
        "gss": "gss",
        "own_works": "its own works",
        "other": "nearest other",
        "other_gss": "gss with it",
        "discrimination": "own − other",
        "discrimination_csls": "by CSLS",
    }
    rows = [
        {names[k]: v for k, v in line.items() if k in names and v == v}  # without NaN
        for line in style_score.per_label.to_dict("records")
    ]
    columns = [heading for name, heading in names.items() if name in style_score.per_label]
    note = "its own works: the mean similarity of two works of the label."
    if style_score.labels_matched:
        note += " own − other: below 0 where the images resemble another label's works more than their own."
    return MetricsTable(rows, columns=columns, unranked=("*",)).html() + f'<p class="note">{note}</p>'


def _gallery(style_score: StyleScore, find: Mapping[str, Find]) -> str:
    count = len(style_score.per_image)
    places = np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int)
    shown = style_score.per_image.take(places).to_dict("records")
    nearest: dict[str, list[dict[Any, Any]]] = {line["id"]: [] for line in shown}
    theirs = np.flatnonzero(style_score.pairs["generated"].isin(list(nearest)) & (style_score.pairs["rank"] <= WORKS))
    for pair in style_score.pairs.take(theirs).to_dict("records"):  # the most similar first
        nearest[pair["generated"]].append(pair)
    ours = find["generated"](set(nearest))
    works = find["reference"]({pair["reference"] for pairs in nearest.values() for pair in pairs})
    rows = []
    for line in shown:
        own = line["label"] if style_score.labels_matched else None
        query = ShownImage(line["id"], _caption(line["id"], own), _thumbnail(ours.get(line["id"])), line["gss"])
        rows.append(NeighbourRow(query, [_work(pair, works, own) for pair in nearest[line["id"]]]))
    chosen = f"{SHOWN} of {count:,}, evenly spaced" if count > SHOWN else "All"
    note = f"<p>{chosen}, from the most similar to the least. The number under a generated image is its gss.</p>"
    return note + gallery_html(rows)


def _work(pair: Mapping[Any, Any], works: Mapping[str, ImageLike], own: str | None) -> ShownImage:
    """A reference work; right where it has the generation's `own` label, and neither right nor wrong without one."""
    name, label = pair["reference"], pair["reference_label"]
    right = None if own is None else own in label.split("|")
    return ShownImage(name, _caption(name, label), _thumbnail(works.get(name)), pair["similarity"], right)


def _caption(name: str, label: str | None) -> str:
    return label or Path(name).stem


def _thumbnail(image: ImageLike | None) -> Image.Image | None:
    try:
        return None if image is None else ImageOps.fit(open_image(image, short_side=THUMBNAIL), (THUMBNAIL, THUMBNAIL))
    except StylesimError:
        return None


def _about(run_dir: Path, sets: Mapping[str, DescriptorSet]) -> list[Section]:
    encoder = next(iter(sets.values())).meta.get("encoder", {})
    facts = {"encoder": encoder.get("name"), "weights": encoder.get("weights")}
    if (provenance := run_dir / "provenance.json").is_file():
        facts |= json.loads(provenance.read_text())
        facts["versions"] = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    sections = [Section("Provenance", facts_html(facts))]
    if (config := run_dir / "config.yaml").is_file():
        sections.append(Section("Configuration", code_html(config.read_text()), folded=True))
    damaged = [pair for images in sets.values() for pair in images.damaged]
    return [*sections, Section("Damaged images", damaged_html(damaged), folded=not damaged)]
