"""A web server of one file that can break off, ignore ranges and send something else."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serve `content` at `url`. A connection breaks off after `most` bytes; byte `end` is never sent, if given.

    `requests` lists the Range header of every request (None without one). A path with `missing` is answered with 404.
    """

    def __init__(self, content: bytes, *, ranges: bool = True, most: int | None = None, end: int | None = None) -> None:
        self.content, self.ranges, self.most, self.end = content, ranges, most, end
        self.requests: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(asked := self.headers.get("Range"))
                if "missing" in self.path:
                    return self.send_error(404)
                size, start = len(outer.content), 0
                if asked and outer.ranges:
                    start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
                    there = start < size
                    self.send_response(206 if there else 416)
                    self.send_header("Content-Range", f"bytes {f'{start}-{size - 1}' if there else '*'}/{size}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(max(size - start, 0)))
                self.end_headers()
                self.wfile.write(outer.content[: outer.end][start:][: outer.most])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/file"

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()
