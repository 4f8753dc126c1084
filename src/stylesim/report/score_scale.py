"""One number on a scale: where it falls among the distributions that give it a meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LEFT, RIGHT, TOP, STEP, HEIGHT = 236, 976, 78, 92, 62
"""The plot's sides and its head, the room of a ridge and the height of its peak, in px of 1000."""
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Distribution(NamedTuple):
    """One distribution; `colour` is a variable of the page (`--accent`)."""

    title: str
    values: Float[np.ndarray, " n"]
    colour: str


def scale_html(ridges: Sequence[Distribution], value: float, interval: tuple[float, float] | None) -> str:
    """A line at `value`, and a band over its `interval`, through the ridges, each with its median and middle 90 %.

    Inline SVG in the page's own colours. Empty ridges are left out.
    """
    ridges = [ridge for ridge in ridges if len(ridge.values)]
    ticks = _ticks([value, *(edge(ridge.values) for ridge in ridges for edge in (np.min, np.max))])
    bottom = TOP + STEP * len(ridges) + 6

    def place(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    parts = [_tick(tick, place(tick), bottom) for tick in ticks]
    parts += [_ridge(ridge, TOP + STEP * (row + 1) - 12, place, ticks) for row, ridge in enumerate(ridges)]
    parts.append(_marker(value, interval, place, bottom))
    style = "display:block;width:100%;min-width:660px;font-variant-numeric:tabular-nums"
    return (
        f'<div class="wide"><svg viewBox="0 0 1000 {bottom + 28}" role="img" style="{style}"'
        f' aria-label="{value:.3f} on a scale from {ticks[0]:g} to {ticks[-1]:g}">{"".join(parts)}</svg></div>'
    )


def _tick(tick: float, x: float, bottom: int) -> str:
    line = f'<path d="M{x:.1f} {TOP - 6}V{bottom}" stroke="var(--line)"/>'
    return line + _text(x, bottom + 20, format_number(tick, "g"), "middle")


def _marker(value: float, interval: tuple[float, float] | None, place: Callable[[float], float], bottom: int) -> str:
    x, (low, high) = place(value), map(place, interval or (value, value))
    anchor, aside = ("end", low - 10) if x > (LEFT + RIGHT) / 2 else ("start", high + 10)
    box = f'x="{low:.1f}" y="6" width="{high - low:.1f}" height="{bottom - 6}"'
    parts = [
        f'<rect {box} fill="var(--accent)" opacity=".14"/>',
        f'<path d="M{x:.1f} 6V{bottom}" stroke="var(--accent)" stroke-width="2"/>',
        _text(aside, 30, format_number(value), anchor, "var(--accent)", 'font-size="30" font-weight="700"'),
    ]
    if interval:
        parts.append(_text(aside, 52, f"95 %: {format_number(interval[0])} – {format_number(interval[1])}", anchor))
    return "".join(parts)


def _ridge(ridge: Distribution, base: int, place: Callable[[float], float], ticks: Sequence[float]) -> str:
    values, colour = ridge.values, f"var({ridge.colour})"
    low, middle, high = (place(v) for v in np.quantile(values, (0.05, 0.5, 0.95)))
    parts = [
        _text(0, base - 24, ridge.title, colour="var(--ink)", font='font-size="15" font-weight="600"'),
        _text(0, base - 4, f"median {format_number(float(np.median(values)))}, of {len(values):,}"),
    ]
    if values.std() > 0:
        grid = np.linspace(ticks[0], ticks[-1], 361)
        peaks = zip(map(place, grid), base - HEIGHT * _density(values, grid), strict=True)
        outline = f"M{LEFT} {base}" + "".join(f"L{x:.1f} {y:.1f}" for x, y in peaks) + f"L{RIGHT} {base}"
        parts.append(f'<path d="{outline}" fill="{colour}" fill-opacity=".2" stroke="{colour}" stroke-width="1.5"/>')
    parts += [
        f'<path d="M{low:.1f} {base}H{high:.1f}" stroke="{colour}" stroke-width="4" stroke-linecap="round"/>',
        f'<circle cx="{middle:.1f}" cy="{base}" r="5.5" fill="var(--card)" stroke="{colour}" stroke-width="3"/>',
    ]
    return "".join(parts)


def _text(
    x: float, y: float, text: str, anchor: str = "start", colour: str = "var(--soft)", font: str = 'font-size="13"'
) -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="{colour}" {font}>{escape(text)}</text>'


def format_number(value: float, form: str = ".3f") -> str:
    """A number for readers: with a minus sign that is no hyphen."""
    return format(value, form).replace("-", "−")


def _density(values: Float[np.ndarray, " n"], grid: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """A Gaussian kernel density (Silverman's width) of the binned values, with a peak of 1."""
    step = grid[1] - grid[0]
    low, high = np.quantile(values, (0.25, 0.75))
    width = 0.9 * min(values.std(), (high - low) / 1.34 or np.inf) * len(values) ** -0.2
    counts, _ = np.histogram(values, np.append(grid - step / 2, grid[-1] + step / 2))
    density = np.exp(-(((grid[:, None] - grid[None]) / max(width, step)) ** 2) / 2) @ counts
    return density / density.max()


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers, nine at most, from below the least value to above the largest."""
    low, high = min(values), max(values)
    step = next(s for s in STEPS if (high - low) / s <= 8)
    first, last = int(np.floor(low / step)), int(np.ceil(high / step))
    return [round(i * step, 6) for i in range(first, max(last, first + 1) + 1)]
