"""Refuse requests that are too large, too frequent, from another site, or without the token."""

from __future__ import annotations

import base64
import hmac
import time
from collections import OrderedDict
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 64 << 20
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class RateLimit:
    """A token bucket for each visitor.

    Args:
        burst: Number of requests that may follow each other at once.
        per_second: Number of further requests in a second.
    """

    VISITORS = 10_000

    def __init__(self, burst: int, per_second: float) -> None:
        self.burst, self.per_second = burst, per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admits(self, visitor: str, now: float) -> bool:
        """Return whether a request of a visitor at a time in seconds is within the limit, and count it."""
        left, last = self._buckets.pop(visitor, (float(self.burst), now))
        left = min(self.burst, left + (now - last) * self.per_second)
        admitted = left >= 1
        self._buckets[visitor] = (left - admitted, now)
        if len(self._buckets) > self.VISITORS:
            self._buckets.popitem(last=False)
        return admitted


class RequestGuard:
    """ASGI middleware that checks each request before its body is read, and bounds the body.

    Args:
        app: The application.
        hosts: Names that the header Host may have, without a port. A page that was bound to another name by DNS
            rebinding is refused.
        token: What the visitor must know; None asks for nothing.
        limit: The rate limit of uploads.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], token: str | None, limit: RateLimit) -> None:
        self.app, self.hosts, self.token, self.limit = app, set(hosts), token, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if (refusal := self._refusal(scope, headers)) is not None:
            status, reason = refusal
            ask = {"WWW-Authenticate": 'Basic realm="stylesim"'} if status == 401 else None
            await JSONResponse({"detail": reason}, status, ask)(scope, receive, send_with_headers)
            return
        await self.app(scope, _bounded(receive), send_with_headers)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        if _host(f"//{headers.get('host', '')}") not in self.hosts:
            return 421, "This server does not answer for the host that the request names."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers["host"]:
            return 403, "Requests from other sites are refused."
        if scope["path"] != "/health" and not self._knows_token(headers):
            return 401, "Send the token: Authorization: Bearer TOKEN, or as the password in a browser."
        if scope["method"] != "POST":
            return None
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_BODY:
            return 413, f"A request may have at most {MAX_BODY >> 20} MiB."
        visitor = (scope.get("client") or ("unknown", 0))[0]
        if not self.limit.admits(visitor, time.monotonic()):
            return 429, "Too many requests. Wait a few seconds."
        return None

    def _knows_token(self, headers: dict[str, str]) -> bool:
        if self.token is None:
            return True
        kind, _, sent = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":  # a browser asks its user for a name, which is ignored, and a password
            try:
                sent = base64.b64decode(sent, validate=True).decode("latin-1").partition(":")[2]
            except ValueError:
                return False
        return hmac.compare_digest(sent.encode("latin-1", "replace"), self.token.encode())


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _bounded(receive: Receive) -> Receive:
    """Return a `receive` that ends the connection of a body that is longer than its length, or has none."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return message if received <= MAX_BODY else {"type": "http.disconnect"}

    return bounded
