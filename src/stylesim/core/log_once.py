"""Log a message once, however often the same files are listed."""

from __future__ import annotations

import logging
from functools import cache


@cache
def log_once(level: int, message: str) -> None:
    """Log a message, unless this process has logged the same one before."""
    logging.getLogger(__name__).log(level, message)
