"""Warnings that concern many images and are given once."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

_given: set[str] = set()


def warn_once(kind: str, message: str) -> None:
    """Log a warning, unless this process has already given one of this kind."""
    if kind not in _given:
        _given.add(kind)
        logger.warning(message)
