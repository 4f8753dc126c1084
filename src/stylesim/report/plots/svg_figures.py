"""Create matplotlib figures, and inline them as SVG in the colours of a page."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE = ("#5b73e8", "#e0823d", "#2fa37c", "#c65b9b", "#9a8a2c", "#7a6bd1", "#d4574e", "#4a9fc7")
INK = "#010203"
"""Text and axes of a figure that `inline_svg` draws in the text colour of the page."""


def new_figure(width: float, height: float) -> Figure:
    """Create a figure of `width` x `height` inches, without a window and outside matplotlib's global state."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def inline_svg(figure: Figure, *, salt: str) -> Markup:
    """Return a figure as an SVG element that takes the width of its parent and has no background.

    Args:
        figure: The figure. Parts in the colour `INK` get the text colour of the page, which may be light or dark.
        salt: A text that is unique on the page; it makes the ids in the SVG unique and reproducible.
    """
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()[file.getvalue().index("<svg") :].replace(INK, "currentColor")
    return Markup(re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1))
