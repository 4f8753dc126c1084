"""Write the report of one run: its metrics, its training curves, and what its encoder retrieves."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from PIL import Image

from stylesim.core.files import atomic_path, write_text
from stylesim.data.open_samples import open_samples
from stylesim.data.roots import Root, name_roots
from stylesim.evaluation.evaluate_descriptors import RetrievalResult
from stylesim.report.html_page import Section, render, write_page
from stylesim.report.label_errors import (
    UNKNOWN,
    Movements,
    Prediction,
    confusion_matrix,
    errors_by_label,
    movements_of_labels,
    nearest_neighbour_predictions,
    plot_confusion_matrix,
)
from stylesim.report.plots.neighbour_gallery import (
    NeighbourRow,
    choose_queries,
    draw_contact_sheet,
    load_thumbnail,
    neighbour_rows,
    shown_ids,
)
from stylesim.report.plots.svg_figures import inline_svg
from stylesim.report.plots.training_curves import training_curves
from stylesim.report.provenance_sections import provenance_sections
from stylesim.report.tables.metrics_table import MetricsTable

QUERIES, FAILURES = 12, 6
"""Number of queries in a gallery, and of queries with a wrong nearest neighbour in the section on errors."""

Results = Mapping[str, Mapping[str, RetrievalResult]]
"""Results by encoder, then by retrieval set. The evaluated encoder comes first, then its controls."""

log = logging.getLogger(__name__)


def write_run_report(
    run_dir: Path, results: Results, *, movements: Movements = "genre:*", loggers: Iterable[Any] = ()
) -> Path:
    """Write the report of a run into its folder, print the metrics, and log them and the contact sheets.

    Writes `report.html`, `table.csv`, `galleries/*.png`, `errors/*.csv` and `errors/*.png`.

    Args:
        run_dir: Folder of the run.
        results: The results of the evaluation. The table compares them with the first control, if there is one.
        movements: The movements by which wrong labels are summarised (see `read_movements`).
        loggers: Lightning loggers, which get the table and the contact sheets.

    Returns:
        The path of the page.
    """
    table = _metrics_table(results)
    all_metrics = MetricsTable([_all_metrics(encoder, sets) for encoder, sets in results.items()])
    write_text(run_dir / "table.csv", all_metrics.csv())
    retrievals = next(iter(results.values()))
    galleries = {name: _galleries(retrieval, _named_roots(retrievals)) for name, retrieval in retrievals.items()}
    sections = [Section("Metrics", render("metrics_table.html", table=table) + _metrics_note(results, table))]
    if (run_dir / "metrics.csv").is_file():
        sections.append(Section("Training curves", training_curves(run_dir / "metrics.csv")))
    for name, (rows, failures) in galleries.items():
        body = render("neighbours.html", rows=rows)
        body += _report_errors(run_dir / "errors", name, retrievals[name], movements, failures)
        sections.append(Section(f"Nearest neighbours: {_title(name)}", body))
    encoder = next(iter(retrievals.values())).queries.meta.get("encoder", {})
    sections += provenance_sections(run_dir, encoder, _damaged_images(retrievals))
    page = write_page(run_dir / "report.html", f"stylesim: {run_dir.name}", sections, summary=_summarise(results))
    for name, (rows, _) in galleries.items():
        sheet = draw_contact_sheet(rows)
        with atomic_path(run_dir / "galleries" / f"{name}.png") as partial:
            sheet.save(partial, format="PNG")
        _log_image(loggers, f"gallery/{name}", sheet)
    _log_table(loggers, table)
    print(f"\n{table.markdown()}", flush=True)
    log.info("The report is %s.", page)
    return page


def _metrics_table(results: Results) -> MetricsTable:
    rows = []
    for encoder, sets in results.items():
        row: dict[str, Any] = {"encoder": encoder}
        for name, retrieval in sets.items():
            row[f"{name}/recall@1"] = float(retrieval.metrics["recall@1"])
            if "content_recall@1" in retrieval.metrics:
                row[f"{name}/content"] = float(retrieval.metrics["content_recall@1"])
        rows.append(row)
    retrievals = next(iter(results.values()))
    chance = {f"{name}/recall@1": r.metrics["chance_recall@1"] for name, r in retrievals.items()}
    baseline = list(results)[1] if len(results) > 1 else None
    return MetricsTable([*rows, {"encoder": "chance", **chance}], baseline=baseline)


def _metrics_note(results: Results, table: MetricsTable) -> str:
    retrievals = next(iter(results.values()))
    has_content = any(retrieval.spec.distinct is not None for retrieval in retrievals.values())
    return render("metrics_note.html", has_content=has_content, baseline=table.baseline)


def _all_metrics(encoder: str, sets: Mapping[str, RetrievalResult]) -> dict[str, Any]:
    metrics = {f"{name}/{key}": value for name, retrieval in sets.items() for key, value in retrieval.metrics.items()}
    return {"encoder": encoder, **metrics}


def _report_errors(
    folder: Path, name: str, retrieval: RetrievalResult, movements: Movements, failures: list[NeighbourRow]
) -> Markup:
    """Write the wrong labels of a retrieval set to `folder` and return them as HTML.

    The HTML is empty if all labels are correct, or if images have several labels.
    """
    predictions = nearest_neighbour_predictions(retrieval)
    if all(prediction.correct for prediction in predictions):
        return Markup()
    movement_of, labels = movements_of_labels(retrieval, movements), errors_by_label(predictions)
    table = pd.DataFrame(labels)
    table["movement"] = [movement_of.get(label) for label in table["label"]]
    write_text(folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    title = _confusion_title(name, predictions, movement_of)
    figure = plot_confusion_matrix(confusion_matrix(predictions, movement_of), title)
    with atomic_path(folder / f"{name}.png") as partial:
        figure.savefig(partial, format="png", dpi=130)
    return render(
        "label_errors.html",
        wrong=sum(not prediction.correct for prediction in predictions),
        total=len(predictions),
        labels=labels[:20],
        matrix=inline_svg(figure, salt=f"errors {name}"),
        failures=render("neighbours.html", rows=failures) if failures else None,
    )


def _confusion_title(name: str, predictions: list[Prediction], movement_of: Mapping[str, str]) -> str:
    wrong = [prediction for prediction in predictions if not prediction.correct]
    title = f"{_title(name)}: {len(wrong):,} of {len(predictions):,} nearest neighbours have a wrong label"
    if movement_of:
        pairs = [(movement_of.get(p.label, UNKNOWN), movement_of.get(p.predicted, UNKNOWN)) for p in wrong]
        same = sum(query == neighbour != UNKNOWN for query, neighbour in pairs)
        title += f",\n{same / len(wrong):.1%} of these are in the correct movement"
    return title


def _named_roots(retrievals: Mapping[str, RetrievalResult]) -> dict[str, Root]:
    """Return the roots of all retrieval sets by location, with the names under which their images were embedded."""
    locations = {location for r in retrievals.values() for location in (*r.spec.query, *(r.spec.gallery or ()))}
    return {root.location: root for root in name_roots(sorted(locations))}


def _galleries(retrieval: RetrievalResult, roots: Mapping[str, Root]) -> tuple[list[NeighbourRow], list[NeighbourRow]]:
    """Return rows of queries from all labels, and rows of queries with a wrong nearest neighbour.

    The few images that are shown are read in one pass over the data, however large it is.
    """
    queries, failures = choose_queries(retrieval, QUERIES), choose_queries(retrieval, FAILURES, only_failures=True)
    wanted = shown_ids(retrieval, [*queries, *failures])
    locations = dict.fromkeys([*retrieval.spec.query, *(retrieval.spec.gallery or ())])
    thumbnails = {
        sample.id: load_thumbnail(sample.image, retrieval.spec, sample.id)
        for sample in open_samples([roots[location] for location in locations])
        if sample.id in wanted
    }
    return neighbour_rows(retrieval, queries, thumbnails), neighbour_rows(retrieval, failures, thumbnails)


def _summarise(results: Results) -> str:
    """Return the recall of each retrieval set, one per line if there are several."""
    names = list(next(iter(results.values())))
    if len(names) == 1:
        return f"The nearest neighbour has the right style for {_recall(results, names[0])}."
    lines = [f"{_title(name)}: {_recall(results, name)}" for name in names]
    return "\n".join(["The nearest neighbour has the right style for", *lines])


def _recall(results: Results, name: str) -> str:
    """Return the recall@1 of the evaluated encoder beside chance and the best control, as text."""
    model, *controls = results
    metrics = results[model][name].metrics
    text = f"{metrics['recall@1']:.1%} of {metrics['queries']:,} queries (chance {metrics['chance_recall@1']:.1%}"
    if controls:
        best = max(controls, key=lambda control: results[control][name].metrics["recall@1"])
        text += f", best control {best} {results[best][name].metrics['recall@1']:.1%}"
    return text + ")"


def _damaged_images(retrievals: Mapping[str, RetrievalResult]) -> list[tuple[str, str]]:
    return sorted({pair for r in retrievals.values() for pair in (*r.queries.damaged, *r.gallery.damaged)})


def _title(name: str) -> str:
    """Return the name of a retrieval set in words."""
    return name.replace("_", " ")


def _log_image(loggers: Iterable[Any], name: str, image: Image.Image) -> None:
    for logger in loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(name, [image])


def _log_table(loggers: Iterable[Any], table: MetricsTable) -> None:
    columns = table.shown_columns
    for logger in loggers:
        if hasattr(logger, "log_table"):
            logger.log_table("metrics", columns=columns, data=[[row.get(c) for c in columns] for row in table.rows])
