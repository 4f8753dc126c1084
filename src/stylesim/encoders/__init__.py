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
    "clip_vit": "clip_baseline",
    "color_histogram": "controls",
    "csd_clip": "factories",
    "csd_lite0": "factories",
    "csd_on": "csd_baseline",
    "csd_timm": "factories",
    "dino_vitb16": "self_supervised",
    "dino_vitb8": "self_supervised",
    "export_csd": "checkpoint",
    "frozen_lite0": "controls",
    "gda_clip": "gda",
    "gda_dino": "gda",
    "gda_vit": "gda",
    "ink_box": "controls",
    "load_checkpoint": "checkpoint",
    "load_encoder": "load",
    "moco_vitb": "self_supervised",
    "palette": "controls",
    "random_lite0": "controls",
    "random_vit": "clip_baseline",
    "save_weights": "checkpoint",
    "sscd_rn50": "sscd",
    "vgg_gram": "vgg",
}
__all__ = list(_HOMES)  # type: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
