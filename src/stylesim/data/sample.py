"""Sample: one image with its id, tags, content and source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from stylesim.core.errors import CorruptSampleError


class Sample(NamedTuple):
    """One image of a shard, a folder or a table, with what is known about it."""

    id: str
    """`<root>/<shard>/<key>` or `<root>/<path>`, unique within a run; for a truncated shard, the name of the shard."""
    image: bytes | Path | Image.Image | None
    """The encoded image, its file, or its pixels; None if only labels are read, or if there is a problem."""
    tags: Sequence[str] = ()
    content: str | None = None
    """What the image shows, if that is labelled separately from its style."""
    source: str = ""
    """The shard, folder or table that it comes from."""
    problem: str | None = None
    """Why the sample cannot be read, or None; a long run counts such a sample and skips it."""

    def encoded(self) -> bytes:
        """Return the encoded image; if `image` is a path, the file is read.

        Raises:
            CorruptSampleError: If there is none, with the problem as its message.
        """
        if self.problem is None and isinstance(self.image, bytes):
            return self.image
        if self.problem is None and isinstance(self.image, Path):
            try:
                return self.image.read_bytes()
            except OSError as error:
                raise CorruptSampleError(f"the file cannot be read ({error.strerror or error})") from error
        raise CorruptSampleError(self.problem or "no image")
