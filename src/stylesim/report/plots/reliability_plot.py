"""Draw how often attributions of a predicted probability are right."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from stylesim.report.html_page import render

SIZE, MARGIN = 320, 44


def reliability_plot(reliability: pd.DataFrame) -> Markup:
    """Draw the observed share of right attributions over the predicted probability, with 95 % intervals.

    Args:
        reliability: Groups of works with `works`, `predicted` and `observed`.
    """
    points = []
    for row in reliability.to_dict("records"):
        low, high = wilson_interval(row["observed"], int(row["works"]))
        ends = {name: MARGIN + (SIZE - MARGIN - 12) * value for name, value in {"x": row["predicted"]}.items()}
        heights = {name: _height(value) for name, value in {"y": row["observed"], "low": low, "high": high}.items()}
        points.append({**ends, **heights, **row})
    ticks = [(value, MARGIN + (SIZE - MARGIN - 12) * value, _height(value)) for value in (0, 0.25, 0.5, 0.75, 1)]
    return render("reliability_plot.html", points=points, ticks=ticks, size=SIZE, margin=MARGIN)


def _height(value: float) -> float:
    return SIZE - MARGIN - (SIZE - MARGIN - 12) * value


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    z = 1.959964
    centre, spread = share + z * z / (2 * count), z * (share * (1 - share) / count + z * z / (4 * count**2)) ** 0.5
    return (centre - spread) / (1 + z * z / count), (centre + spread) / (1 + z * z / count)
