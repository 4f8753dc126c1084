"""Locations of images: a local folder, an http(s) prefix, or a command that prints a file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stylesim.core.errors import ConfigError

REMOTE = ("http://", "https://", "pipe:")


@dataclass(frozen=True)
class Root:
    """A location that holds shards and their `index.json`, or image files."""

    location: str
    """A folder, an http(s) prefix, or `pipe:` with a command that prints a file.

    The name of the file replaces `{}`, or is put at the end: `pipe:aws s3 cp s3://bucket/shards/{} -`.
    """
    name: str
    """First part of the ids of its images."""

    @property
    def folder(self) -> Path | None:
        """The folder; None for a remote location."""
        return None if self.location.startswith(REMOTE) else Path(self.location).expanduser()

    def url(self, file: str) -> str:
        """Return the path, URL or command with which `open_url` opens a file of the root."""
        if self.folder is not None:
            return str(self.folder.absolute() / file)
        if not self.location.startswith("pipe:"):
            return f"{self.location.rstrip('/')}/{quote(file)}"
        command, file = self.location, shlex.quote(file)
        return command.replace("{}", file) if "{}" in command else f"{command.rstrip('/')}/{file}"


@contextmanager
def open_url(url: str) -> Iterator[Any]:
    """Open a local path, or what WebDataset's `gopen` understands, for reading bytes."""
    if url.startswith(REMOTE):
        from webdataset.gopen import gopen  # imports torch, which local files do not need

        stream = gopen(url)
    else:
        stream = Path(url).open("rb")  # noqa: SIM115 (closed below)
    try:
        yield stream
    finally:
        # Stopping a command before the end of its output is no error. A command that fails leaves too little to read,
        # which the reader notices.
        with suppress(OSError):
            stream.close()


def name_roots(locations: Sequence[str | Path]) -> list[Root]:
    """Name roots by the last part of their location, or by as many of the last parts as tell them apart.

    Raises:
        ConfigError: If a location is given twice.
    """
    texts = [str(location) for location in locations]
    parts = [_parts(text) for text in texts]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-depth:]).strip("/") for part in parts]
        if len(set(names)) == len(names):
            return [Root(text, name) for text, name in zip(texts, names, strict=True)]
    raise ConfigError(f"Each location must be given once (a weight can repeat it), got {', '.join(texts)}.")


def _parts(location: str) -> list[str]:
    path = location.split("{}")[0] if location.startswith(REMOTE) else str(Path(location).absolute())
    return [part for part in path.split("/") if part]
