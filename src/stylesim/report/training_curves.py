"""Training curves, from the metrics.csv of Lightning's CSVLogger."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stylesim.core.errors import StylesimError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

X = "samples_seen"
INK = "#010203"
"""Stands for the page's own text colour until the SVG is inlined."""
PROBED = re.compile(r"/((content_|chance_)?recall@1|map@(?!1$)\d+)$")
"""Figures of a probe that are drawn: one of each kind, of the dozens there are (`map@1` is `recall@1`)."""
POINTS = 600
"""A curve of more points is averaged down to about that many."""
COLOURS = ("#5b73e8", "#e0823d", "#2fa37c", "#c65b9b", "#9a8a2c", "#7a6bd1", "#d4574e", "#4a9fc7")


def curves_html(metrics_csv: Path | str) -> str:
    """Every metric of a run against the samples seen: one panel for the losses, each probe, throughput,
    rates.

    Drawn as inline SVG in the page's own colours. Raises StylesimError where the file is missing or holds no
    curve.
    """
    table = read_training_log(metrics_csv)
    panels = [_figure(title, table, columns) for title, columns in _panels(list(table.columns)).items()]
    return f'<div class="curves">{"".join(panels)}</div>'


def read_training_log(metrics_csv: Path | str) -> pd.DataFrame:
    """The log, indexed by samples seen; a row that lacks the count takes it from its step.

    A run that was resumed logs some steps twice: the last one counts.
    """
    try:
        table = pd.read_csv(metrics_csv)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise StylesimError(f"{metrics_csv} is no log to draw curves from: {error}.") from error
    if "step" not in table or not len(table):
        raise StylesimError(f"{metrics_csv} is no log to draw curves from: it has no step column, or no row.")
    known = table.dropna(subset=[X]).groupby("step")[X].last() if X in table else pd.Series(dtype=float)
    steps = table["step"].to_numpy(float)
    seen = np.interp(steps, known.index, known) if len(known) else steps
    numbers = table.drop(columns=["step", "epoch", X], errors="ignore").select_dtypes("number")
    return numbers.groupby(pd.Index(seen, name=X if len(known) else "step")).last()


def _panels(columns: Sequence[str]) -> dict[str, list[str]]:
    """Columns by panel, in the order a reader asks: does it learn, does it retrieve, how fast."""
    panels: dict[str, list[str]] = {}
    for column in columns:
        group, _, rest = column.partition("/")
        if group == "probe" and "/" in rest:
            if not PROBED.search(rest):
                continue
            panels.setdefault(f"Probe: {rest.rpartition('/')[0]}", []).append(column)
        elif group == "train":
            loss = re.search("loss|supervised|ssl|content", rest)
            panels.setdefault("Loss" if loss else _words(rest), []).append(column)
        elif column.startswith("lr"):
            panels.setdefault("Learning rate", []).append(column)
        else:
            panels.setdefault(_words(group if rest else column), []).append(column)
    first = ("Loss", "Probe")
    return dict(sorted(panels.items(), key=lambda p: next((i for i, f in enumerate(first) if p[0].startswith(f)), 9)))


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _figure(title: str, table: pd.DataFrame, columns: Sequence[str]) -> str:
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "font.family": "sans-serif",
        "font.size": 9,
    }
    seen = table.index.to_numpy(float)
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(5.4, 3.0), layout="constrained")
        axes = figure.add_subplot()
        for column, colour in zip(columns, COLOURS * len(columns), strict=False):
            _draw(axes, seen, table[column].to_numpy(float), column.rpartition("/")[2] or column, colour)
        _dress(axes, str(table.index.name), fractions=title.startswith("Probe"), several=len(columns) > 1)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()[file.getvalue().index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    return f"<metric><figcaption>{escape(title)}</figcaption>{svg}</metric>"


def _draw(axes: Axes, x: np.ndarray, y: np.ndarray, label: str, colour: str) -> None:
    x, y = x[~np.isnan(y)], y[~np.isnan(y)]
    if len(x) > POINTS:
        parts = np.array_split(np.arange(len(x)), POINTS)
        x, y = (np.array([v[part].mean() for part in parts]) for v in (x, y))
    if len(x) < 60:
        axes.plot(x, y, color=colour, lw=1.6, marker="o", ms=3, label=label)
        return
    axes.plot(x, y, color=colour, lw=0.7, alpha=0.3)
    smooth = pd.Series(y).rolling(len(y) // 30, center=True, min_periods=1).mean()
    axes.plot(x, smooth, color=colour, lw=1.7, label=label)


def _dress(axes: Axes, x: str, *, fractions: bool, several: bool) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.ticklabel_format(axis="y", scilimits=(-3, 5))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(_words(x).lower(), color=INK)
    axes.grid(axis="y", color=INK, alpha=0.12, lw=0.6)
    axes.tick_params(colors=INK, length=0)
    axes.margins(x=0.01)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)
        spine.set_alpha(0.35)
    if fractions:
        axes.set_ylim(0, None)
    if several:
        axes.legend(frameon=False, labelcolor=INK, ncols=3, fontsize=8, loc="upper left", bbox_to_anchor=(0, 1.2))
