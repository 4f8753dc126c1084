"""Write a benchmark table as CSV, Markdown, LaTeX and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pandas as pd

from stylesim.core.files import write_text
from stylesim.report.html_page import format_number
from stylesim.report.tables.benchmark_table import (
    MAIN_METRIC,
    BenchmarkCell,
    BenchmarkRow,
    BenchmarkTable,
    Column,
    read_benchmark,
)
from stylesim.report.tables.text_tables import escape_latex, latex_table, markdown_table


def write_benchmark(folder: Path, metrics: Sequence[str] = (MAIN_METRIC,), against: str | None = None) -> str:
    """Write `benchmark.csv`, `.md`, `.tex` and `.png` into `folder`. The errors are those of `read_benchmark`.

    Args:
        folder: Folder of a sweep, or any folder with run folders below it.
        metrics: Columns of retrieval sets that are not in the paper.
        against: The row with which the others are compared; by default the best one of each retrieval set.

    Returns:
        The Markdown text, followed by the names of the files.
    """
    table = read_benchmark(folder, metrics, against)
    text = benchmark_markdown(table)
    write_text(folder / "benchmark.csv", benchmark_csv(table))
    write_text(folder / "benchmark.md", text)
    write_text(folder / "benchmark.tex", benchmark_latex(table))
    if table.columns:  # none if every run has failed
        from stylesim.report.plots.benchmark_plot import plot_benchmark

        plot_benchmark(table, folder / "benchmark.png")
    return f"{text}\nbenchmark: {folder / 'benchmark.md'}, .csv, .tex, .png"


def benchmark_csv(table: BenchmarkTable) -> str:
    """Return a CSV with a line for each encoder and metric, in which fractions have all their digits."""
    lines = []
    for row in table.rows:
        for (name, metric), cell in row.cells.items():
            low, high = cell.interval or (None, None)
            lines.append((row.name, row.title, name, metric, cell.ours, low, high, cell.paper, cell.difference))
    columns = ["encoder", "title", "set", "metric", "ours", "low", "high", "paper", "difference"]
    return pd.DataFrame(lines, columns=columns).to_csv(index=False, lineterminator="\n")


def benchmark_markdown(table: BenchmarkTable) -> str:
    """Return the metrics in percent, the comparison of the encoders, and the missing results, as Markdown."""
    columns = ["encoder", *(f"{name} {metric_title(metric)}" for name, metric in table.columns)]
    cells = [[row.name, *(_markdown_cell(table, row, column) for column in table.columns)] for row in table.rows]
    common = f" Common to all runs: {' '.join(table.common_overrides)}." if table.common_overrides else ""
    parts = [
        "In percent. In parentheses: the paper's value and our difference from it. The best of our values is bold."
        f"{common}\n\n{markdown_table(pd.DataFrame(cells, columns=columns))}"
    ]
    if table.comparisons:
        parts.append(
            f"{MAIN_METRIC} of each encoder with its 95 % bootstrap interval, and how much better the baseline is on"
            " the same queries (paired sign-flip test; p is not corrected for multiple comparisons).\n\n"
            + markdown_table(_comparison_frame(table))
        )
    if table.missing:
        parts.append("Missing:\n\n" + "".join(f"- {sentence}\n" for sentence in table.missing))
    return "\n".join(parts)


def benchmark_latex(table: BenchmarkTable) -> str:
    """Return a `tabular` for booktabs, with the paper's values in parentheses and in a smaller size."""
    columns = [("", "encoder"), *((escape_latex(s), escape_latex(metric_title(m))) for s, m in table.columns)]
    cells = [
        [escape_latex(row.title), *(_latex_cell(table, row, column) for column in table.columns)] for row in table.rows
    ]
    return latex_table(pd.DataFrame(cells, columns=pd.MultiIndex.from_tuples(columns)))


def metric_title(metric: str) -> str:
    """Write `paper_map@10` and `recall@10` as the paper does, mAP@10 and R@10; other metrics keep their names."""
    if metric.startswith(("paper_map", "recall")):
        return metric.replace("paper_map", "mAP").replace("recall", "R")
    return metric


def _comparison_frame(table: BenchmarkTable) -> pd.DataFrame:
    rows = {row.name: row for row in table.rows}
    lines = []
    for name, comparisons in groupby(table.comparisons, key=lambda comparison: comparison.set):
        column = (name, MAIN_METRIC)
        for number, line in enumerate(comparisons):
            if number == 0:
                lines.append([name, line.baseline, *_value_and_interval(rows[line.baseline], column)] + [""] * 5)
            mean, low, high, p = line.difference
            difference = [f"{100 * mean:.1f}", f"{100 * low:.1f} to {100 * high:.1f}", f"{p:.4f}", f"{line.queries:,}"]
            lines.append([name, line.name, *_value_and_interval(rows[line.name], column), line.baseline, *difference])
    columns = ["set", "encoder", MAIN_METRIC, "95 %", "baseline", "difference", "95 %", "p", "queries"]
    return pd.DataFrame(lines, columns=columns)


def _value_and_interval(row: BenchmarkRow, column: Column) -> tuple[str, str]:
    cell = row.cells.get(column, BenchmarkCell())
    interval = f"{100 * cell.interval[0]:.1f} to {100 * cell.interval[1]:.1f}" if cell.interval else ""
    return _percent(cell.ours), interval


def _markdown_cell(table: BenchmarkTable, row: BenchmarkRow, column: Column) -> str:
    cell = row.cells[column]
    ours = f"**{_percent(cell.ours)}**" if _is_best(table, cell, column) else _percent(cell.ours)
    if cell.paper is None:
        return ours
    difference = "" if cell.difference is None else ", " + format_number(100 * cell.difference, "+.1f")
    return f"{ours or '–'} ({_percent(cell.paper)}{difference})"


def _latex_cell(table: BenchmarkTable, row: BenchmarkRow, column: Column) -> str:
    cell = row.cells[column]
    ours = rf"\textbf{{{_percent(cell.ours)}}}" if _is_best(table, cell, column) else _percent(cell.ours) or "--"
    return ours if cell.paper is None else rf"{ours} {{\scriptsize ({_percent(cell.paper)})}}"


def _is_best(table: BenchmarkTable, cell: BenchmarkCell, column: Column) -> bool:
    return cell.ours is not None and _percent(cell.ours) == _percent(table.best(column))


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.1f}"
