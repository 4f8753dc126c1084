"""The report of one run: what it measured, how it learned, what it finds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from stylesim.core.errors import StylesimError
from stylesim.core.images import open_image
from stylesim.data.open_samples import open_samples
from stylesim.data.roots import Root, name_roots
from stylesim.evaluation.evaluate_descriptors import RetrievalResult
from stylesim.report.html_page import Section, code_html, damaged_html, facts_html, image_uri, write_report
from stylesim.report.label_errors import (
    UNKNOWN,
    Movements,
    confusion_matrix,
    errors_by_label,
    movements_of_labels,
    nearest_neighbour_predictions,
    plot_confusion_matrix,
    worst_html,
)
from stylesim.report.metrics_table import MetricsTable
from stylesim.report.neighbour_gallery import NeighbourRow, draw_contact_sheet, gallery_html, neighbour_rows
from stylesim.report.training_curves import curves_html

Results = Mapping[str, Mapping[str, RetrievalResult]]
"""Encoder, then retrieval set; the encoder in question comes first."""


def write_run_report(
    run_dir: Path, results: Results, *, movements: Movements = "genre:*", loggers: Iterable[Any] = ()
) -> Path:
    """Write the report of a run into its folder, print the table, and log it and the galleries.

    Leaves `report.html`, `table.csv`, `galleries/*.png`, `errors/*.csv` and `errors/*.png`. The table compares with the
    first control where there is one. `movements`: what the errors are summed up into. Returns the path of the page.
    """
    table = _table(results)
    (run_dir / "table.csv").write_text(MetricsTable([_every_figure(n, sets) for n, sets in results.items()]).csv())
    model = next(iter(results))
    every = {
        r for retrieval in results[model].values() for r in (*retrieval.spec.query, *(retrieval.spec.gallery or ()))
    }
    names = {root.location: root for root in name_roots(sorted(every))}
    galleries = {name: galleries_of(retrieval, names) for name, retrieval in results[model].items()}
    sections = [Section("Figures", table.html() + _legend(results))]
    if (run_dir / "metrics.csv").is_file():
        sections.append(Section("Curves", curves_html(run_dir / "metrics.csv")))
    for name, (rows, failures) in galleries.items():
        sections.append(Section(f"Gallery: {_words(name)}", gallery_html(rows)))
        sections += _errors(run_dir / "errors", name, results[model][name], movements, failures)
    sections += _about(run_dir, results[model])
    page = write_report(run_dir / "report.html", f"stylesim: {run_dir.name}", sections, summary=_summary(results))
    for name, (rows, _) in galleries.items():
        (run_dir / "galleries").mkdir(exist_ok=True)
        picture = draw_contact_sheet(rows)
        picture.save(run_dir / "galleries" / f"{name}.png")
        _log_picture(loggers, name, picture)
    _log_table(loggers, table)
    print(f"\n{table.markdown()}\nreport: {page}", flush=True)
    return page


def _legend(results: Results) -> str:
    model, *controls = results
    text = "recall@1: share of queries whose nearest neighbour has the query's style"
    if any(retrieval.spec.distinct is not None for retrieval in results[model].values()):
        text += (
            "; the gallery holds other contents only. content: share whose nearest neighbour among the"
            " <em>other styles</em> shows the same content, which a descriptor of style should lose"
        )
    return f"<p>{text}.{' Small metrics: distance from the first control.' if controls else ''}</p>"


def _table(results: Results) -> MetricsTable:
    rows = []
    for encoder, sets in results.items():
        row: dict[str, Any] = {"encoder": encoder}
        for name, retrieval in sets.items():
            row[f"{name}/recall@1"] = float(retrieval.metrics["recall@1"])
            if "content_recall@1" in retrieval.metrics:
                row[f"{name}/content"] = float(retrieval.metrics["content_recall@1"])
        rows.append(row)
    chance = {f"{n}/recall@1": r.metrics["chance_recall@1"] for n, r in next(iter(results.values())).items()}
    baseline = list(results)[1] if len(results) > 1 else None
    return MetricsTable([*rows, {"encoder": "chance", **chance}], baseline=baseline)


def _every_figure(encoder: str, sets: Mapping[str, RetrievalResult]) -> dict[str, Any]:
    metrics = {f"{name}/{key}": value for name, r in sets.items() for key, value in r.metrics.items()}
    return {"encoder": encoder, **metrics}


def _errors(
    folder: Path, name: str, retrieval: RetrievalResult, movements: Movements, failures: Sequence[NeighbourRow]
) -> list[Section]:
    """The section on the wrong answers of a retrieval set; none where all are right, or images have several labels."""
    answers = nearest_neighbour_predictions(retrieval)
    wrong = sum(not answer.correct for answer in answers)
    if not wrong:
        return []
    movement, worst = movements_of_labels(retrieval, movements), errors_by_label(answers)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{**line._asdict(), "movement": movement.get(line.label)} for line in worst]
    (folder / f"{name}.csv").write_text(MetricsTable(lines).csv())
    matrix = confusion_matrix(answers, movement)
    title = f"{_words(name)}: {wrong:,} wrong of {len(answers):,} nearest neighbours"
    if movement:
        found = [(movement.get(a.label, UNKNOWN), movement.get(a.predicted, UNKNOWN)) for a in answers if not a.correct]
        near = sum(asked == given != UNKNOWN for asked, given in found)
        title += f",\n{near / wrong:.1%} of the wrong ones from the right movement"
    plot_confusion_matrix(matrix, title, folder / f"{name}.png")
    with Image.open(folder / f"{name}.png") as picture:
        matrix_html = f'<metric><img alt="" style="max-width:100%" src="{image_uri(picture)}"></metric>'
    shown = f"<h3>Failures</h3>{gallery_html(failures)}" if failures else ""
    html = f"<h3>The worst</h3>{worst_html(worst)}<h3>What is taken for what</h3>{matrix_html}{shown}"
    return [Section(f"Errors: {_words(name)}", html, folded=True)]


def galleries_of(
    retrieval: RetrievalResult, names: Mapping[str, Root]
) -> tuple[list[NeighbourRow], list[NeighbourRow]]:
    """Rows for pictures, of all queries and of failures.

    The images are found in one pass over the sources, however large, since only some are shown.
    """
    wanted: set[str] = set()

    def note(name: str) -> Image.Image:
        wanted.add(name)
        raise OSError

    def both(open_item: Callable[[str], Image.Image]) -> tuple[list[NeighbourRow], list[NeighbourRow]]:
        return neighbour_rows(retrieval, open_item), neighbour_rows(retrieval, open_item, 6, only_failures=True)

    both(note)
    roots = dict.fromkeys([*retrieval.spec.query, *(retrieval.spec.gallery or ())])
    images = {item.id: item.image for item in open_samples([names[r] for r in roots]) if item.id in wanted}

    def opened(name: str) -> Image.Image:
        if (source := images.get(name)) is None:
            raise StylesimError(f"{name} is not among {', '.join(roots)} any more.")
        image = open_image(source)
        return image.convert("L").convert("RGB") if retrieval.spec.greyscale else image

    return both(opened)


def _summary(results: Results) -> str:
    model, *controls = results
    sentences = []
    for name, retrieval in results[model].items():
        metrics = retrieval.metrics
        text = f"{_words(name)}: the nearest neighbour has the right style for {metrics['recall@1']:.1%} of"
        text += f" {metrics['queries']:,} queries (chance {metrics['chance_recall@1']:.1%}"
        if controls:
            best = max(controls, key=lambda c: results[c][name].metrics["recall@1"])
            text += f", best control {best} {results[best][name].metrics['recall@1']:.1%}"
        sentences.append(text + ").")
    return " ".join(sentences)


def _about(run_dir: Path, sets: Mapping[str, RetrievalResult]) -> list[Section]:
    about: dict[str, Any] = next(iter(sets.values())).queries.meta.get("encoder", {})
    shown = {"name": "name", "weights": "weights", "licence": "licence", "trained_on": "training images"}
    sections = [Section("Encoder", facts_html({words: about.get(key) or "not known" for key, words in shown.items()}))]
    if (config := run_dir / "config.yaml").is_file():
        sections.append(Section("Configuration", code_html(config.read_text()), folded=True))
    if (provenance := run_dir / "provenance.json").is_file():
        facts = json.loads(provenance.read_text())
        versions = ", ".join(f"{k} {v}" for k, v in facts.pop("versions").items())
        sections.append(Section("Provenance", facts_html(facts | {"versions": versions})))
    damaged: Sequence[tuple[str, str]] = sorted(
        {d for r in sets.values() for d in (*r.queries.damaged, *r.gallery.damaged)}
    )
    sections.append(Section("Damaged images", damaged_html(damaged), folded=not damaged))
    return sections


def _words(name: str) -> str:
    return name.replace("_", " ")


def _log_picture(loggers: Iterable[Any], name: str, picture: Image.Image) -> None:
    for logger in loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(f"gallery/{name}", [picture])


def _log_table(loggers: Iterable[Any], table: MetricsTable) -> None:
    columns = list(table.columns or ())
    for logger in loggers:
        if hasattr(logger, "log_table"):
            logger.log_table("metrics", columns=columns, data=[[row.get(c) for c in columns] for row in table.rows])
