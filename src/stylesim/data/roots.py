"""Where shards lie: a local folder, an http(s) prefix, or a command that prints a file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stylesim.core.errors import StylesimError

REMOTE = ("http://", "https://", "pipe:")


@dataclass(frozen=True)
class Root:
    """A place that holds shards and their `index.json`.

    `location` is a folder, an http(s) prefix, or `pipe:` with a command that prints the file whose name is
    put in for `{}`, or at its end (`pipe:cat /data/shards/`, `pipe:aws s3 cp s3://bucket/shards/{} -`).
    """

    location: str
    name: str
    """First part of the ids of its images."""

    @property
    def folder(self) -> Path | None:
        """The folder, if it is a local one."""
        return None if self.location.startswith(REMOTE) else Path(self.location).expanduser()

    def url(self, file: str) -> str:
        """What webdataset's `gopen` opens for this file of the root."""
        if self.folder is not None:
            return str(self.folder.absolute() / file)
        if not self.location.startswith("pipe:"):
            return f"{self.location.rstrip('/')}/{quote(file)}"
        command, file = self.location, shlex.quote(file)
        return command.replace("{}", file) if "{}" in command else f"{command.rstrip('/')}/{file}"


@contextmanager
def open_url(url: str) -> Iterator[Any]:
    """The file behind `url`, closed afterwards."""
    if url.startswith(REMOTE):
        from webdataset.gopen import gopen  # imports torch, which an index of local files can do without

        stream = gopen(url)
    else:
        stream = Path(url).open("rb")  # noqa: SIM115 (closed below, like the others)
    try:
        yield stream
    finally:
        # A command whose output is not read to its end dies of it, which is no error; one that fails by
        # itself leaves too little to read.
        with suppress(OSError):
            stream.close()


def name_roots(locations: Sequence[str | Path]) -> list[Root]:
    """Roots named by the last part of their location, or as many last parts as tell them apart.

    Raises `StylesimError` if a location is given twice.
    """
    texts = [str(location) for location in locations]
    parts = [_parts(text) for text in texts]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-depth:]).strip("/") for part in parts]
        if len(set(names)) == len(names):
            return [Root(text, name) for text, name in zip(texts, names, strict=True)]
    raise StylesimError(f"a root is given twice: {', '.join(texts)}; give each one once (a weight can repeat it)")


def _parts(location: str) -> list[str]:
    path = location.split("{}")[0] if location.startswith(REMOTE) else str(Path(location).absolute())
    return [part for part in path.split("/") if part]
