"""Sample: one image with its id, tags, content and source."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image


class Sample(NamedTuple):
    """One image of a query, a gallery or a folder, with what is known about it."""

    id: str
    image: bytes | Path | Image.Image | None  # None: only the labels are wanted
    tags: list[str]
    content: str | None
    source: str
