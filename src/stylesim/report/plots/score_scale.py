"""Draw a score on a scale that gives it a meaning: beside distributions of similarities from the same corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from stylesim.report.html_page import render

TICK_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Distribution(NamedTuple):
    """Values to compare a score with.

    Attributes:
        title: Plain text.
        values: The values; a distribution without any is not drawn.
        colour: A CSS variable of the page, such as `--accent`.
    """

    title: str
    values: Float[np.ndarray, " n"]
    colour: str


class Layout(NamedTuple):
    """Dimensions of a drawing, in units of its view box."""

    name: str
    width: int
    left: int
    """Left end of the scale."""
    right: int
    top: int
    """Height of the top area, in which the score is written."""
    step: int
    """Height of a distribution with its caption."""
    peak: int
    """Height of the peak of a density curve."""


LAYOUTS = (
    Layout("wide", width=1000, left=236, right=976, top=78, step=92, peak=62),
    Layout("narrow", width=420, left=12, right=408, top=70, step=104, peak=56),
)
"""The page shows the first layout on wide screens, and the second one, with captions above the curves, on phones."""


def score_scale(distributions: Sequence[Distribution], value: float, interval: tuple[float, float] | None) -> Markup:
    """Draw a vertical line at a score and a band over its interval, across distributions to compare it with.

    Args:
        distributions: Drawn as density curves from top to bottom, each with its median and its middle 90 %.
        value: The score.
        interval: Its 95 % interval, if there is one.

    Returns:
        SVGs for a wide and a narrow page, in the colours of the page.
    """
    distributions = [distribution for distribution in distributions if len(distribution.values)]
    ends = [end(distribution.values) for distribution in distributions for end in (np.min, np.max)]
    ticks = round_ticks([value, *ends])
    drawings = [_geometry(layout, distributions, value, interval, ticks) for layout in LAYOUTS]
    return render("score_scale.html", drawings=drawings, value=value, interval=interval, ticks=ticks)


def _geometry(
    layout: Layout,
    distributions: Sequence[Distribution],
    value: float,
    interval: tuple[float, float] | None,
    ticks: Sequence[float],
) -> dict[str, Any]:
    """Return the coordinates of all elements for the template."""

    def x(value: float) -> float:
        return layout.left + (layout.right - layout.left) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    ridges = []
    for row, distribution in enumerate(distributions):
        base = layout.top + layout.step * (row + 1) - 12
        low, median, high = np.quantile(distribution.values, (0.05, 0.5, 0.95))
        ridges.append(
            {
                "title": distribution.title,
                "colour": distribution.colour,
                "count": len(distribution.values),
                "median": median,
                "base": base,
                "x": {"low": x(low), "median": x(median), "high": x(high)},
                "outline": _outline(distribution.values, layout, base, x, ticks),
            }
        )
    low, high = map(x, interval or (value, value))
    return {
        "layout": layout,
        "ridges": ridges,
        "ticks": [(tick, x(tick)) for tick in ticks],
        "bottom": layout.top + layout.step * len(distributions) + 6,
        "x": {"low": low, "value": x(value), "high": high},
        "label_left": x(value) > (layout.left + layout.right) / 2,
    }


def _outline(
    values: Float[np.ndarray, " n"],
    layout: Layout,
    base: int,
    x: Callable[[float], float],
    ticks: Sequence[float],
) -> str:
    """Return the density curve as an SVG path; empty if all values are equal."""
    if not values.std() > 0:
        return ""
    grid = np.linspace(ticks[0], ticks[-1], 361)
    points = zip(map(x, grid), base - layout.peak * _density(values, grid), strict=True)
    return " ".join([f"M{layout.left} {base}", *(f"L{x:.1f} {y:.1f}" for x, y in points), f"L{layout.right} {base}"])


def _density(values: Float[np.ndarray, " n"], grid: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """Return a Gaussian kernel density (Silverman's bandwidth) of the binned values, scaled to a peak of 1."""
    step = grid[1] - grid[0]
    low, high = np.quantile(values, (0.25, 0.75))
    bandwidth = 0.9 * min(values.std(), (high - low) / 1.34 or np.inf) * len(values) ** -0.2
    counts, _ = np.histogram(values, np.append(grid - step / 2, grid[-1] + step / 2))
    density = np.exp(-(((grid[:, None] - grid[None]) / max(bandwidth, step)) ** 2) / 2) @ counts
    return density / density.max()


def round_ticks(values: Sequence[float]) -> list[float]:
    """Return at most ten round numbers that enclose all values."""
    low, high = min(values), max(values)
    step = next(s for s in TICK_STEPS if (high - low) / s <= 8)
    first, last = int(np.floor(low / step)), int(np.ceil(high / step))
    return [round(number * step, 6) for number in range(first, max(last, first + 1) + 1)]
