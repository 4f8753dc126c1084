"""Render a drawing as an image of 96 x 96 px: trimmed to its ink, scaled to one box, centred on white."""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import resvg_py
from PIL import Image
from rich.progress import track
from sources import Drawings

CANVAS, BOX = 96, 88  # pixels
RASTER = 192  # every drawing is rasterised at this size, so that none is sharper than another
QUALITY = 90  # of WebP
INK = 16  # of 255: a pixel further than this from white in any channel is ink
Rasters = dict[str, dict[str, np.ndarray]]  # by style and content, uint8 [96 96 3]


def ink_box(pixels: np.ndarray) -> tuple[int, int, int, int] | None:
    """Return the bounding box (left, top, right, bottom) of the ink of `pixels` [h w 3] uint8, or None without ink."""
    ink = (255 - pixels.min(axis=2)) > INK
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return None if not len(rows) else (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def render(drawing: str | bytes) -> np.ndarray | None:
    """Return the image [96 96 3] uint8, or None if the drawing has almost no ink or cannot be rendered."""
    if isinstance(drawing, str):
        if "<text" in drawing or "<animate" in drawing:  # there are no fonts, and a first frame would be arbitrary
            return None
        drawing = resvg_py.svg_to_bytes(svg_string=drawing, skip_system_fonts=True, width=RASTER)
    image = Image.open(io.BytesIO(drawing)).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image).convert("RGB")
    box = ink_box(np.asarray(image))
    if box is None or max(box[2] - box[0], box[3] - box[1]) < RASTER // 8:
        return None
    image = image.crop(box)
    scale = BOX / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    image = image.resize(size, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (CANVAS, CANVAS), "white")
    canvas.paste(image, ((CANVAS - size[0]) // 2, (CANVAS - size[1]) // 2))
    return np.asarray(canvas)


def render_all(drawings: Drawings, processes: int) -> Rasters:
    """Render every drawing that has ink, with `processes` processes."""
    keys = [(style, content) for style in drawings for content in drawings[style]]
    flat = [drawings[style][content] for style, content in keys]
    rasters: Rasters = {style: {} for style in drawings}
    with ProcessPoolExecutor(processes) as pool:
        rendered = pool.map(render, flat, chunksize=64)
        for (style, content), raster in zip(keys, track(rendered, "Render", len(flat)), strict=True):
            if raster is not None:
                rasters[style][content] = raster
    return rasters


def encode(raster: np.ndarray) -> bytes:
    """Encode as lossy WebP: lossless is rarely smaller, and would show by its lack of artefacts which set it is."""
    buffer = io.BytesIO()
    Image.fromarray(raster).save(buffer, "webp", quality=QUALITY, method=6)
    return buffer.getvalue()
