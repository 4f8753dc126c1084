"""Download a published file over HTTP: resumable, and moved into place only when it is complete."""

from __future__ import annotations

import http.client
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock

from stylesim.core.errors import WeightsError
from stylesim.core.files import atomic_path, sha256_of_file
from stylesim.core.progress import progress
from stylesim.encoders.weights.cache_folders import disk_problem

CHUNK = 2**20
ATTEMPTS = 5
"""Number of consecutive connections without a single new byte after which a download fails."""
TIMEOUT_S = 30


def download(url: str, path: Path, *, title: str, sha256: str | None = None) -> None:
    """Download a file. An incomplete download stays in `<path>.partial`, which the next call continues.

    If several processes request the same file at once, one downloads it and the others wait.

    Args:
        url: Address of the file.
        path: Where to put it. Nothing is done if it exists.
        title: Name of the file in messages and in the progress bar.
        sha256: Hex digits of its SHA-256, or the first ones.

    Raises:
        OSError: If the server refuses, the connection breaks repeatedly, or the file cannot be written.
        WeightsError: If the digest differs; the download is then deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with FileLock(f"{path}.lock"):
        if path.is_file():
            return
        _fetch(url, partial, title)
        try:
            check_digest(partial, sha256, title)
        except WeightsError:
            partial.unlink()
            raise
        partial.replace(path)


def check_digest(path: Path, expected: str | None, title: str) -> str:
    """Return the SHA-256 of a file.

    Raises:
        WeightsError: If it does not begin with the hex digits `expected`.
    """
    digest = sha256_of_file(path)
    if expected and not digest.startswith(expected):
        raise WeightsError(
            f"{path} is not the published file of {title}: its SHA-256 is {digest}, expected {expected}. "
            f"The download is incomplete or the file was changed: delete it, if it still exists, and try again."
        )
    return digest


def extract_member(archive: Path, member: str, path: Path) -> None:
    """Write one file of a tar archive to `path`, and nothing else.

    Args:
        archive: The archive.
        member: Path of the file in the archive. It may be inside further folders.
        path: Where to write it.

    Raises:
        OSError: If the file cannot be written.
        WeightsError: If the archive is damaged or has no such file. Links, and paths that lead out of the archive's
            folder, do not count.
    """
    wanted = PurePosixPath(member).parts
    try:
        with tarfile.open(archive) as tar:
            for entry in tar:
                parts = PurePosixPath(entry.name).parts
                inside = ".." not in parts and not entry.name.startswith("/")
                if entry.isreg() and inside and parts[-len(wanted) :] == wanted:
                    with (
                        tar.extractfile(entry) as source,  # type: ignore[union-attr]
                        atomic_path(path) as partial,
                        partial.open("wb") as out,
                    ):
                        shutil.copyfileobj(source, out, CHUNK)
                    return
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if disk_problem(error):
            raise
        reason = str(error).partition("\n")[0].rstrip(":")
        raise WeightsError(f"The archive {archive} cannot be read ({reason}): delete it and try again.") from error
    raise WeightsError(f"The archive {archive} has no file {member}: it is not the published one.")


def _fetch(url: str, partial: Path, title: str) -> None:
    """Append to `partial` until it is complete, over as many connections as necessary."""
    failures = 0
    while True:
        before = partial.stat().st_size if partial.is_file() else 0
        try:
            if _receive(url, partial, before, title):
                return
            reason = "the connection was closed"
        except HTTPError as error:
            raise OSError(f"{url} cannot be downloaded: the server answered {error.code} {error.reason}.") from error
        except (OSError, http.client.HTTPException) as error:
            if disk_problem(error):
                raise
            reason = str(error) or type(error).__name__
        now = partial.stat().st_size if partial.is_file() else 0
        failures = 0 if now > before else failures + 1
        if failures == ATTEMPTS or not now:
            rest = f" {now:,} bytes of it are in {partial}; the next attempt continues from there." if now else ""
            raise OSError(f"{url} cannot be downloaded: {reason}.{rest}")


def _receive(url: str, partial: Path, start: int, title: str) -> bool:
    """Receive what one connection sends, and return whether the file is complete."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        if not (start and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{start}"):
            return True
        partial.unlink()  # longer than the file, so it is not its beginning
        return _receive(url, partial, 0, title)
    with response:
        # A server without support for ranges sends the whole file again.
        resumed = start and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        size = start if resumed else 0
        remaining = response.headers.get("Content-Length")
        total = size + int(remaining) if remaining else None
        chunks = -(-total // CHUNK) if total else None
        with partial.open("ab" if resumed else "wb") as file, progress(title, chunks, unit="MiB") as advance:
            advance(size // CHUNK)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                size += len(chunk)
                advance(1)
    return total is None or size == total
