"""Plot training curves from the metrics.csv of Lightning's CSVLogger."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stylesim.core.errors import DataError
from stylesim.report.html_page import render
from stylesim.report.plots.svg_figures import INK, PALETTE, inline_svg, new_figure

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

SAMPLES_SEEN = "samples_seen"
PROBE_METRICS = re.compile(r"/((content_|chance_)?recall@1|map@(?!1$)\d+)$")
"""The metrics of a probe that are plotted; it logs dozens. `map@1` is left out, because it equals `recall@1`."""
MAX_POINTS = 600
"""The largest number of points of a curve; neighbouring points of longer curves are averaged."""


def training_curves(metrics_csv: Path | str) -> Markup:
    """Plot every metric of a run against the samples seen.

    Args:
        metrics_csv: The file that Lightning's CSVLogger has written.

    Returns:
        HTML with inline SVG: one panel for the losses, and one for each probe, the throughput, the learning rates etc.

    Raises:
        DataError: If the file is missing or has no steps.
    """
    table = read_training_log(metrics_csv)
    panels = {title: _draw_panel(title, table, columns) for title, columns in _group(list(table.columns)).items()}
    return render("training_curves.html", panels=panels)


def read_training_log(metrics_csv: Path | str) -> pd.DataFrame:
    """Read the log of a training run.

    Args:
        metrics_csv: The file that Lightning's CSVLogger has written.

    Returns:
        The logged values, indexed by samples seen. A row without this number gets it by interpolation between steps;
        if no row has it, the index is the step. If a resumed run logged a step twice, the last value is used.

    Raises:
        DataError: If the file is missing or has no steps.
    """
    try:
        table = pd.read_csv(metrics_csv)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{metrics_csv} is not a training log: {error}.") from error
    if "step" not in table or not len(table):
        raise DataError(f"{metrics_csv} is not a training log: it has no column `step`, or no row.")
    known = table.dropna(subset=[SAMPLES_SEEN]) if SAMPLES_SEEN in table else table[:0]
    samples_by_step = known.groupby("step")[SAMPLES_SEEN].last() if len(known) else pd.Series(dtype=float)
    x = table["step"].to_numpy(float)
    if len(known):
        x = np.interp(x, samples_by_step.index, samples_by_step)
    numbers = table.drop(columns=["step", "epoch", SAMPLES_SEEN], errors="ignore").select_dtypes("number")
    return numbers.groupby(pd.Index(x, name=SAMPLES_SEEN if len(known) else "step")).last()


def _group(columns: Sequence[str]) -> dict[str, list[str]]:
    """Group columns by the title of their panel: losses first, then probes, then the rest."""
    panels: dict[str, list[str]] = {}
    for column in columns:
        group, _, name = column.partition("/")
        if group == "probe" and "/" in name:
            if not PROBE_METRICS.search(name):
                continue
            title = f"Probe: {name.rpartition('/')[0]}"
        elif group == "train":
            title = "Loss" if re.search("loss|supervised|ssl|content", name) else _to_words(name)
        elif column.startswith("lr"):
            title = "Learning rate"
        else:
            title = _to_words(group if name else column)
        panels.setdefault(title, []).append(column)
    first = ("Loss", "Probe")
    return dict(sorted(panels.items(), key=lambda panel: [not panel[0].startswith(title) for title in first]))


def _to_words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _draw_panel(title: str, table: pd.DataFrame, columns: Sequence[str]) -> Markup:
    import matplotlib

    with matplotlib.rc_context({"font.family": "sans-serif", "font.size": 9}):
        figure = new_figure(5.4, 3.0)
        axes = figure.add_subplot()
        x = table.index.to_numpy(float)
        for column, colour in zip(columns, PALETTE * len(columns), strict=False):
            _draw_curve(axes, x, table[column].to_numpy(float), column.rpartition("/")[2] or column, colour)
        _style_axes(axes, str(table.index.name), from_zero=title.startswith("Probe"), legend=len(columns) > 1)
        return inline_svg(figure, salt=title)


def _draw_curve(axes: Axes, x: np.ndarray, y: np.ndarray, label: str, colour: str) -> None:
    """Draw points connected by lines, or from 60 points on a faint line and its moving average."""
    x, y = x[~np.isnan(y)], y[~np.isnan(y)]
    if len(x) > MAX_POINTS:
        parts = np.array_split(np.arange(len(x)), MAX_POINTS)
        x, y = (np.array([values[part].mean() for part in parts]) for values in (x, y))
    if len(x) < 60:
        axes.plot(x, y, color=colour, lw=1.6, marker="o", ms=3, label=label)
        return
    axes.plot(x, y, color=colour, lw=0.7, alpha=0.3)
    smooth = pd.Series(y).rolling(len(y) // 30, center=True, min_periods=1).mean()
    axes.plot(x, smooth, color=colour, lw=1.7, label=label)


def _style_axes(axes: Axes, x: str, *, from_zero: bool, legend: bool) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.ticklabel_format(axis="y", scilimits=(-3, 5))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(_to_words(x).lower(), color=INK)
    axes.grid(axis="y", color=INK, alpha=0.12, lw=0.6)
    axes.tick_params(colors=INK, length=0)
    axes.margins(x=0.01)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)
        spine.set_alpha(0.35)
    if from_zero:
        axes.set_ylim(0, None)
    if legend:
        axes.legend(frameon=False, labelcolor=INK, ncols=3, fontsize=8, loc="upper left", bbox_to_anchor=(0, 1.2))
