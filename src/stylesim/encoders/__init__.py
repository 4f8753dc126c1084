"""Encoders, which map images to descriptors, and their weights.

Names are imported on first use, so that `stylesim.encoders.weights.weight_keywords` can be used without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "CSDEncoder": "csd_encoder",
    "Preprocessing": "preprocessing",
    "Provenance": "style_encoder",
    "StyleEncoder": "style_encoder",
    "clip_vit": "baselines.clip_baseline",
    "color_histogram": "controls",
    "csd_clip": "csd_factories",
    "csd_lite0": "csd_factories",
    "csd_on": "csd_on_baselines",
    "csd_timm": "csd_factories",
    "dino_vitb16": "baselines.dino_and_moco",
    "dino_vitb8": "baselines.dino_and_moco",
    "export_csd": "weights.checkpoint",
    "frozen_lite0": "controls",
    "gda_clip": "baselines.gda",
    "gda_dino": "baselines.gda",
    "gda_vit": "baselines.gda",
    "ink_box": "controls",
    "list_models": "catalogue",
    "load_checkpoint": "weights.checkpoint",
    "load_encoder": "load",
    "moco_vitb": "baselines.dino_and_moco",
    "palette": "controls",
    "random_lite0": "controls",
    "random_vit": "controls",
    "save_weights": "weights.checkpoint",
    "sscd_rn50": "baselines.sscd",
    "vgg_gram": "baselines.vgg_gram",
}
__all__ = list(_HOMES)  # type: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
