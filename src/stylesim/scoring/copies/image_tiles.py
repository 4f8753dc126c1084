"""Cut an image into the parts that a copy check compares: 4 x 4 tiles and the four halves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

GRID = 4
FLAT = 4.0
"""A part whose grey levels (0 to 255) have a smaller standard deviation is empty background, which matches any
other."""
SMALLEST = 16
"""A part whose shorter side has fewer pixels is not compared."""


class Tile(NamedTuple):
    """A part of an image."""

    name: str
    left: float
    """Edges as fractions of width and height."""
    top: float
    right: float
    bottom: float

    def crop(self, image: Image.Image) -> Image.Image:
        """Cut the part out of an image."""
        width, height = image.size
        left, right = round(self.left * width), round(self.right * width)
        return image.crop((left, round(self.top * height), right, round(self.bottom * height)))


WHOLE = Tile("whole", 0, 0, 1, 1)
TILES = (
    Tile("left half", 0, 0, 0.5, 1),
    Tile("right half", 0.5, 0, 1, 1),
    Tile("upper half", 0, 0, 1, 0.5),
    Tile("lower half", 0, 0.5, 1, 1),
    *(
        Tile(f"row {row + 1}, column {column + 1}", *(edge / GRID for edge in (column, row, column + 1, row + 1)))
        for row in range(GRID)
        for column in range(GRID)
    ),
)


def cut_tiles(image: Image.Image) -> list[tuple[Tile, Image.Image]]:
    """Cut an image into TILES, without those that are nearly flat or have hardly any pixels."""
    cuts = ((tile, tile.crop(image)) for tile in TILES)
    return [
        (tile, cut) for tile, cut in cuts if min(cut.size) >= SMALLEST and np.std(np.asarray(cut.convert("L"))) >= FLAT
    ]
