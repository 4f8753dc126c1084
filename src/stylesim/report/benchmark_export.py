"""A benchmark's table as CSV, Markdown and LaTeX, and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from stylesim.report.benchmark_table import MAIN, BenchmarkCell, BenchmarkRow, BenchmarkTable, Column, read_benchmark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, PAPER = "#5b73e8", "#c8372d"


def write_benchmark(folder: Path, metrics: Sequence[str] = (MAIN,), against: str | None = None) -> str:
    """Write `benchmark.csv`, `.md`, `.tex` and `.png` into `folder`; returns what a terminal should say."""
    table = read_benchmark(folder, metrics, against)
    text = as_markdown(table)
    (folder / "benchmark.csv").write_text(as_csv(table))
    (folder / "benchmark.md").write_text(text)
    (folder / "benchmark.tex").write_text(as_latex(table))
    if table.columns:  # else every job has failed
        as_picture(table, folder / "benchmark.png")
    return f"{text}\nbenchmark: {folder / 'benchmark.md'}, .csv, .tex, .png"


def as_csv(table: BenchmarkTable) -> str:
    """A line for each encoder and metric, fractions unrounded."""
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(["encoder", "title", "set", "metric", "ours", "low", "high", "paper", "difference"])
    for row in table.rows:
        for (name, metric), cell in row.cells.items():
            low, high = cell.interval or (None, None)
            lines.writerow([row.name, row.title, name, metric, cell.ours, low, high, cell.paper, cell.difference])
    return file.getvalue()


def as_markdown(table: BenchmarkTable) -> str:
    """The table in percent, the comparison of the encoders, and what is missing."""
    head = ["encoder", *(f"{name} {_heading(metric)}" for name, metric in table.columns)]
    body = [[row.name, *(_markdown_cell(table, row, column) for column in table.columns)] for row in table.rows]
    common = f" All with {' '.join(table.common)}." if table.common else ""
    lead = f"In percent: ours (the paper's, the difference); the best of ours is bold.{common}\n\n"
    parts = [lead + _markdown(head, body)]
    if table.comparisons:
        head = ["set", "encoder", MAIN, "95 %", "against", "better by", "95 %", "p", "queries"]
        parts.append(
            f"{MAIN} of each encoder with its bootstrap interval, and by how much another one is better on the same"
            " queries (paired sign-flip test; p is not corrected for the number of lines).\n\n"
            + _markdown(head, _compared(table))
        )
    if table.missing:
        parts.append("Missing:\n\n" + "".join(f"- {line}\n" for line in table.missing))
    return "\n".join(parts)


def as_latex(table: BenchmarkTable) -> str:
    """A `tabular` with the rules of booktabs; the paper's metrics are small."""
    groups = [(name, len(list(columns))) for name, columns in groupby(table.columns, key=lambda column: column[0])]
    sets = " & ".join(rf"\multicolumn{{{width}}}{{c}}{{{_tex(name)}}}" for name, width in groups)
    metrics = " & ".join(_tex(_heading(metric)) for _, metric in table.columns)
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        rf"& {sets} \\",
        rf"encoder & {metrics} \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = " & ".join(_tex_cell(table, row, column) for column in table.columns)
        lines.append(rf"{_tex(row.title)} & {cells} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def as_picture(table: BenchmarkTable, file: Path) -> None:
    """One panel for each retrieval set: the main metric of every encoder with its interval, beside the paper's."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    panels = [(name, metric) for name, metric in table.columns if metric == MAIN or (name, MAIN) not in table.columns]
    height = 1.2 + 0.32 * len(table.rows)
    figure = Figure(figsize=(2.2 + 3.4 * max(1, len(panels)), height), layout="constrained")
    for axes, column in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        _panel(axes, table, column)
    handles = {
        label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower right", ncols=2, frameon=False)
    figure.savefig(file, dpi=160)


def _panel(axes: Axes, table: BenchmarkTable, column: Column) -> None:
    places = range(len(table.rows))[::-1]
    for place, row in zip(places, table.rows, strict=True):
        cell = row.cells.get(column, BenchmarkCell())
        if cell.interval:
            axes.plot([100 * bound for bound in cell.interval], [place] * 2, color=OURS, lw=2.4, alpha=0.4)
        if cell.paper is not None:
            axes.plot(100 * cell.paper, place, "D", ms=5, mfc="none", color=PAPER, label="paper")
        if cell.ours is not None:
            axes.plot(100 * cell.ours, place, "o", ms=5, color=OURS, label="ours, 95 % interval")
    axes.set_yticks(list(places), [row.name for row in table.rows])
    axes.set_ylim(-0.6, len(table.rows) - 0.4)
    axes.set_title(column[0].replace("_", " "), fontsize=11)
    axes.set_xlabel(f"{_heading(column[1])} in %")
    axes.grid(axis="x", alpha=0.25)
    axes.grid(axis="y", alpha=0.1)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _compared(table: BenchmarkTable) -> list[list[str]]:
    rows = {row.name: row for row in table.rows}
    lines = []
    for name, group in groupby(table.comparisons, key=lambda line: line.set):
        several = list(group)
        against = several[0].against
        lines.append([name, against, *_with_interval(rows[against], (name, MAIN)), "", "", "", "", ""])
        for line in several:
            mean, low, high, p = line.difference
            interval = f"{100 * low:.1f} to {100 * high:.1f}"
            mine = _with_interval(rows[line.name], (name, MAIN))
            lines.append(
                [name, line.name, *mine, against, f"{100 * mean:.1f}", interval, f"{p:.4f}", f"{line.queries:,}"]
            )
    return lines


def _with_interval(row: BenchmarkRow, column: Column) -> tuple[str, str]:
    cell = row.cells.get(column, BenchmarkCell())
    low_high = f"{100 * cell.interval[0]:.1f} to {100 * cell.interval[1]:.1f}" if cell.interval else ""
    return _percent(cell.ours), low_high


def _markdown(head: list[str], body: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in (head, rule, *body))
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def _markdown_cell(table: BenchmarkTable, row: BenchmarkRow, column: Column) -> str:
    cell = row.cells[column]
    ours = f"**{_percent(cell.ours)}**" if _is_best(table, cell, column) else _percent(cell.ours)
    paper = [text for text in (_percent(cell.paper), _signed(cell.difference)) if text]
    return f"{ours or '–'} ({', '.join(paper)})" if paper else ours


def _tex_cell(table: BenchmarkTable, row: BenchmarkRow, column: Column) -> str:
    cell = row.cells[column]
    ours = rf"\textbf{{{_percent(cell.ours)}}}" if _is_best(table, cell, column) else _percent(cell.ours) or "--"
    return ours if cell.paper is None else rf"{ours} {{\scriptsize ({_percent(cell.paper)})}}"


def _is_best(table: BenchmarkTable, cell: BenchmarkCell, column: Column) -> bool:
    return cell.ours is not None and _percent(cell.ours) == _percent(table.best(column))


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.1f}"


def _signed(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:+.1f}".replace("-", "−")


def _heading(metric: str) -> str:
    """`paper_map@10` as the paper writes it; our own metrics under their own names."""
    return (
        metric.replace("paper_map", "mAP").replace("recall", "R")
        if metric.startswith(("paper_map", "recall"))
        else metric
    )


def _tex(text: str) -> str:
    return text.replace("_", r"\_").replace("%", r"\%").replace("&", r"\&").replace("#", r"\#")
