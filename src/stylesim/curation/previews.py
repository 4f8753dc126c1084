"""What a stage leaves for the eye: curves of counts on logarithmic axes, and sheets of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from stylesim.core.errors import StylesimError
from stylesim.core.images import open_image
from stylesim.curation.stage import open_image_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

CELL = 112


class Picture(NamedTuple):
    """One image of a sheet."""

    id: str
    image: str | None
    """As in a part: a path, or TAR::MEMBER."""
    label: str = ""
    similarity: float | None = None


def plot(
    file: Path,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    x: str,
    y: str,
    scale: tuple[str, str] = ("log", "log"),
    limits: Sequence[float | None] = (),
    steps: bool = False,
) -> None:
    """Curves by name, and broken lines at the `limits` of x, as PNG; `steps` for histograms of (edges, counts)."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    from stylesim.report.plots import PALETTE

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
    drawn = any(np.any(np.asarray(values) > 0) for _, values in curves.values())
    _dress(axes, x, y, scale if drawn else ("linear", "linear"))  # nothing has no logarithm
    figure.savefig(file, metadata={"Software": None})


def _dress(axes: Axes, x: str, y: str, scale: tuple[str, str]) -> None:
    axes.set_xscale(scale[0])
    axes.set_yscale(scale[1])
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.15, lw=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)


def contact_sheet(file: Path, rows: Sequence[Sequence[Picture]]) -> None:
    """Rows of images as PNG, the first of each row apart from the others; what cannot be opened is grey."""
    from stylesim.report.neighbour_gallery import NeighbourRow, ShownImage, draw_contact_sheet

    def work(picture: Picture) -> ShownImage:
        return ShownImage(picture.id, picture.label, _thumbnail(picture.image), picture.similarity)

    sheet = draw_contact_sheet(
        [NeighbourRow(work(first), [work(other) for other in others]) for first, *others in rows], cell=CELL
    )
    sheet.save(file)


def _thumbnail(locator: str | None) -> Image.Image | None:
    try:
        image = open_image(open_image_at(locator), short_side=CELL) if locator else None
    except StylesimError:
        return None
    return image and ImageOps.pad(image, (CELL, CELL), color="white")  # whole: duplicates may differ at the edges
