"""Images to descriptors: the encoders, their weights, and the files that hold them.

Names load on first use, so that `stylesim.encoders.weights.locate` can be asked without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "CSDEncoder": "csd",
    "Preprocessing": "base",
    "Provenance": "base",
    "StyleEncoder": "base",
    "clip_vit": "baselines.clip",
    "color_histogram": "controls",
    "csd_clip": "csd_factories",
    "csd_lite0": "csd_factories",
    "csd_on": "csd_on_baselines",
    "csd_timm": "csd_factories",
    "dino_vitb16": "baselines.self_supervised",
    "dino_vitb8": "baselines.self_supervised",
    "export_csd": "weights.checkpoint",
    "frozen_lite0": "controls",
    "gda_clip": "baselines.gda",
    "gda_dino": "baselines.gda",
    "gda_vit": "baselines.gda",
    "ink_box": "controls",
    "load_checkpoint": "weights.checkpoint",
    "load_encoder": "load",
    "moco_vitb": "baselines.self_supervised",
    "palette": "controls",
    "random_lite0": "controls",
    "random_vit": "baselines.clip",
    "save_weights": "weights.checkpoint",
    "sscd_rn50": "baselines.sscd",
    "vgg_gram": "baselines.vgg",
}
__all__ = list(_HOMES)  # type: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
