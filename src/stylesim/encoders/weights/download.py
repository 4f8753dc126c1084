"""Fetch a published file over HTTP: resumed after an interruption, and in its place only when it is whole."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock

from stylesim.core.errors import StylesimError
from stylesim.core.progress import progress

PIECE = 2**20
ATTEMPTS = 5
"""How often in a row a connection may break without one more byte before that is an error."""
TIMEOUT_S = 30


def download(url: str, path: Path, *, title: str, sha256: str | None = None) -> None:
    """Bring `url` to `path`. What has arrived waits in `<path>.partial`, from where the next call goes on.

    Several processes may ask for one file at once: one downloads, the others wait. Raises OSError with a sentence
    when the server refuses or the connection breaks for good, and StylesimError for a file whose digest does not
    begin with `sha256` (it is deleted).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with FileLock(f"{path}.lock"):
        if path.is_file():
            return
        _fetch(url, partial, title)
        try:
            check_digest(partial, sha256, title)
        except StylesimError:
            partial.unlink()
            raise
        partial.replace(path)


def check_digest(path: Path, expected: str | None, title: str) -> str:
    """The file's sha256; StylesimError where it does not begin with the hex digits `expected`."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if expected and not found.startswith(expected):
        raise StylesimError(
            f"{path} is not the published file of {title}: its sha256 is {found}, not {expected}. "
            f"The download was cut short or the file was changed: delete it, if it is still there, and try again."
        )
    return found


def extract_member(archive: Path, member: str, path: Path) -> None:
    """Write the one file `member` of a tar archive to `path`, and nothing else.

    Folders above `member` in the archive do not matter. Raises StylesimError for a damaged archive, and for one
    that has the name only as a link, or outside its own folder.
    """
    wanted = PurePosixPath(member).parts
    partial = path.with_name(f"{path.name}.partial")
    try:
        with tarfile.open(archive) as tar:
            for entry in tar:
                parts = PurePosixPath(entry.name).parts
                inside = ".." not in parts and not entry.name.startswith("/")
                if entry.isreg() and inside and parts[-len(wanted) :] == wanted:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with tar.extractfile(entry) as source, partial.open("wb") as out:  # type: ignore[union-attr]
                        shutil.copyfileobj(source, out, PIECE)
                    partial.replace(path)
                    return
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise StylesimError(f"The archive {archive} cannot be read ({reason}): delete it and try again.") from error
    raise StylesimError(f"The archive {archive} holds no file {member}: it is not the published one.")


def _fetch(url: str, partial: Path, title: str) -> None:
    """Append to `partial` until it is whole, over as many connections as it takes."""
    failures = 0
    while True:
        before = partial.stat().st_size if partial.is_file() else 0
        try:
            if _receive(url, partial, before, title):
                return
            reason = "the connection was closed"
        except HTTPError as error:
            raise OSError(f"{url} cannot be downloaded: the server says {error.code} {error.reason}.") from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
        now = partial.stat().st_size if partial.is_file() else 0
        failures = 0 if now > before else failures + 1
        if failures == ATTEMPTS or not now:
            kept = f" {now:,} bytes of it wait in {partial}, and the next attempt goes on from there." if now else ""
            raise OSError(f"{url} cannot be downloaded: {reason}.{kept}")


def _receive(url: str, partial: Path, start: int, title: str) -> bool:
    """One connection; whether the file is whole now."""
    asked = {"Range": f"bytes={start}-"} if start else {}
    try:
        response = urlopen(Request(url, headers=asked), timeout=TIMEOUT_S)
    except HTTPError as error:
        if not (start and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{start}"):
            return True
        partial.unlink()  # longer than the file, so not its beginning
        return _receive(url, partial, 0, title)
    with response:
        # A server that knows no ranges sends the whole file again.
        resumed = start and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        size = start if resumed else 0
        rest = response.headers.get("Content-Length")
        whole = size + int(rest) if rest else None
        pieces = -(-whole // PIECE) if whole else None
        with partial.open("ab" if resumed else "wb") as file, progress(title, pieces, unit="MiB") as advance:
            advance(size // PIECE)
            while piece := response.read(PIECE):
                file.write(piece)
                size += len(piece)
                advance(1)
    return whole is None or size == whole
