"""Images to descriptors: the encoders, their weights, and the files that hold them.

Names load on first use, so that `stylesim.encoders.weights` can be asked without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "CSDEncoder": "csd",
    "Preprocessing": "base",
    "Provenance": "base",
    "StyleEncoder": "base",
    "color_histogram": "controls",
    "csd_clip": "factories",
    "csd_lite0": "factories",
    "csd_timm": "factories",
    "export_csd": "checkpoint",
    "frozen_lite0": "controls",
    "ink_box": "controls",
    "load_checkpoint": "checkpoint",
    "random_lite0": "controls",
    "save_weights": "checkpoint",
}
__all__ = list(_HOMES)  # type: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
