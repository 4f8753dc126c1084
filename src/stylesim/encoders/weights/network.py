"""Find out within seconds whether a server can be reached, before anything retries for half a minute."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

SECONDS = 3.0


def why_unreachable(url: str) -> str | None:
    """Return why nothing can be downloaded from a server, in at most three seconds; None if it can be reached.

    Where a proxy is configured, it is the proxy that must be reachable. HF_HUB_OFFLINE forbids all downloads, also
    those from other servers.
    """
    if is_offline():
        return "HF_HUB_OFFLINE is set"
    server = urlsplit(url)
    name = server.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(server.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(name):
        server = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        name = f"{name} over the proxy {server.hostname}"
    answers: Queue[str | None] = Queue()
    port = server.port or {"http": 80, "socks5": 1080, "socks5h": 1080}.get(server.scheme, 443)
    # A thread, because resolving a name has no time limit of its own.
    Thread(target=_connect, args=(server.hostname or "", port, answers), daemon=True).start()
    try:
        problem = answers.get(timeout=SECONDS)
    except Empty:
        problem = f"no answer within {SECONDS:g} seconds"
    return problem and f"{name} cannot be reached: {problem}"


def is_offline() -> bool:
    """Return whether the environment variable HF_HUB_OFFLINE forbids downloads."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


@contextmanager
def offline_if_unreachable() -> Iterator[str | None]:
    """Switch the hub's client to its offline mode in a block if the hub cannot be reached, and yield the reason.

    In this mode the client uses its cache and fails at once, instead of trying again for half a minute.
    """
    from huggingface_hub import constants

    before, reason = constants.HF_HUB_OFFLINE, why_unreachable(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = before or reason is not None
    try:
        yield reason
    finally:
        constants.HF_HUB_OFFLINE = before


def _connect(host: str, port: int, answers: Queue[str | None]) -> None:
    try:
        socket.create_connection((host, port), timeout=SECONDS).close()
        answers.put(None)
    except (OSError, UnicodeError) as error:
        answers.put(getattr(error, "strerror", None) or str(error) or type(error).__name__)
