"""Draw the style similarity of candidates against how much content they keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup

from stylesim.report.html_page import render
from stylesim.report.plots.score_scale import round_ticks

WIDTH, HEIGHT = 640, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 16, 56


def style_content_plot(table: pd.DataFrame, encoder: str, content_encoder: str) -> Markup:
    """Draw a point with both 95 % intervals for each candidate.

    Args:
        table: `CandidateRanking.table`, with `content_similarity`.
        encoder: Name of the style encoder.
        content_encoder: Name of the encoder of the content similarity.
    """
    ends = ("content_similarity_low", "content_similarity_high", "content_similarity")
    xs, ys = (
        round_ticks(known_values(table, ends)),
        round_ticks(known_values(table, ("low", "high", "style_similarity"))),
    )

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - xs[0]) / (xs[-1] - xs[0])

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - ys[0]) / (ys[-1] - ys[0])

    points = [
        {
            "rank": row["rank"],
            "name": row["candidate"],
            "style": row["style_similarity"],
            "content": row["content_similarity"],
            "x": [x(_or(row[name], row["content_similarity"])) for name in ends],
            "y": [y(_or(row[name], row["style_similarity"])) for name in ("low", "high", "style_similarity")],
        }
        for row in table.to_dict("records")
    ]
    return render(
        "style_content_plot.html",
        points=points,
        xs=[(tick, x(tick)) for tick in xs],
        ys=[(tick, y(tick)) for tick in ys],
        box={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP},
        bottom=HEIGHT - BOTTOM,
        encoder=encoder,
        content_encoder=content_encoder,
    )


def known_values(table: pd.DataFrame, columns: Sequence[str]) -> list[float]:
    """Return the values of some columns that are not NaN."""
    values = table[list(columns)].to_numpy(dtype=float).ravel()
    return values[~np.isnan(values)].tolist()


def _or(value: float, other: float) -> float:
    return other if value != value else value
