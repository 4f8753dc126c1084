"""Plot a benchmark table: the main metric of every encoder with its interval, beside the paper's value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stylesim.core.files import atomic_path
from stylesim.report.plots.svg_figures import PALETTE, new_figure
from stylesim.report.tables.benchmark_export import metric_title
from stylesim.report.tables.benchmark_table import MAIN_METRIC, BenchmarkCell, BenchmarkTable, Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, PAPER = PALETTE[0], "#c8372d"


def plot_benchmark(table: BenchmarkTable, path: Path) -> None:
    """Write a PNG with one panel for each retrieval set and one row for each encoder."""
    panels = [
        (name, metric)
        for name, metric in table.columns
        if metric == MAIN_METRIC or (name, MAIN_METRIC) not in table.columns
    ]
    figure = new_figure(2.2 + 3.4 * max(1, len(panels)), 1.2 + 0.32 * len(table.rows))
    for axes, column in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        _draw_panel(axes, table, column)
    handles = {
        label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower right", ncols=2, frameon=False)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=160)


def _draw_panel(axes: Axes, table: BenchmarkTable, column: Column) -> None:
    heights = range(len(table.rows))[::-1]
    for y, row in zip(heights, table.rows, strict=True):
        cell = row.cells.get(column, BenchmarkCell())
        if cell.interval:
            axes.plot([100 * bound for bound in cell.interval], [y] * 2, color=OURS, lw=2.4, alpha=0.4)
        if cell.paper is not None:
            axes.plot(100 * cell.paper, y, "D", ms=5, mfc="none", color=PAPER, label="paper")
        if cell.ours is not None:
            axes.plot(100 * cell.ours, y, "o", ms=5, color=OURS, label="ours, 95 % interval")
    axes.set_yticks(list(heights), [row.name for row in table.rows])
    axes.set_ylim(-0.6, len(table.rows) - 0.4)
    axes.set_title(column[0].replace("_", " "), fontsize=11)
    axes.set_xlabel(f"{metric_title(column[1])} in %")
    axes.grid(axis="x", alpha=0.25)
    axes.grid(axis="y", alpha=0.1)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
