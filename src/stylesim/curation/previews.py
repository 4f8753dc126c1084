"""Draw the plots and contact sheets of a stage, for visual inspection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from stylesim.core.errors import StylesimError
from stylesim.core.files import atomic_path
from stylesim.core.images import open_image
from stylesim.curation.image_locator import read_image_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

CELL = 112
"""Side of an image on a contact sheet, in px."""


class SheetImage(NamedTuple):
    """One image of a contact sheet."""

    id: str
    locator: str | None
    """See `read_image_bytes`."""
    label: str = ""
    similarity: float | None = None


def plot_curves(
    file: Path,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    x: str,
    y: str,
    scale: tuple[str, str] = ("log", "log"),
    limits: Sequence[float | None] = (),
    steps: bool = False,
) -> None:
    """Plot curves as PNG.

    Args:
        file: The file to write.
        curves: (x values, y values) by name; (edges, counts) for histograms.
        x: The label of the x axis.
        y: The label of the y axis.
        scale: The scales of both axes. If there is no positive value, both are linear.
        limits: x values at which to draw a dashed line.
        steps: Whether the curves are histograms.
    """
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    from stylesim.report.plots.svg_figures import PALETTE

    figure = Figure(figsize=(6.4, 3.6), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    for (name, (at, values)), colour in zip(curves.items(), PALETTE * len(curves), strict=False):
        if steps:
            axes.stairs(values, at, color=colour, fill=True, alpha=0.45, label=name)
        else:
            axes.plot(at, values, color=colour, lw=1.6, marker=".", ms=4, label=name)
    for limit in limits:
        if limit is not None:
            axes.axvline(limit, color="#666", lw=1, ls="--")
    has_values = any(np.any(np.asarray(values) > 0) for _, values in curves.values())
    _style_axes(axes, x, y, scale if has_values else ("linear", "linear"))  # zero has no logarithm
    with atomic_path(file) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def write_contact_sheet(file: Path, rows: Sequence[Sequence[SheetImage]]) -> None:
    """Write rows of images as PNG, with a gap after the first image. Images that cannot be opened are grey squares."""
    from stylesim.report.plots.neighbour_gallery import NeighbourRow, ShownImage, draw_contact_sheet

    def load(image: SheetImage) -> ShownImage:
        return ShownImage(image.id, image.label, _thumbnail(image.locator), image.similarity)

    sheet = draw_contact_sheet(
        [NeighbourRow(load(first), [load(other) for other in others]) for first, *others in rows], cell=CELL
    )
    with atomic_path(file) as partial:
        sheet.save(partial, "PNG")


def _style_axes(axes: Axes, x: str, y: str, scale: tuple[str, str]) -> None:
    axes.set_xscale(scale[0])
    axes.set_yscale(scale[1])
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.15, lw=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)


def _thumbnail(locator: str | None) -> Image.Image | None:
    try:
        image = open_image(read_image_bytes(locator), short_side=CELL) if locator else None
    except StylesimError:
        return None
    return image and ImageOps.pad(image, (CELL, CELL), color="white")  # uncropped: duplicates may differ at the edges
