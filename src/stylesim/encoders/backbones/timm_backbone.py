"""Backbones of timm with the preprocessing that timm publishes for their weights."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from stylesim.core.errors import ConfigError, WeightsError
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.weights.cache_folders import disk_problem, not_saved
from stylesim.encoders.weights.network import offline_if_unreachable


def timm_network(name: str, pretrained: bool, image_size: int | None) -> Any:
    """Build a timm model in evaluation mode.

    Args:
        name: Name of the model.
        pretrained: Load timm's weights from the Hugging Face hub or its cache.
        image_size: Image size in pixels, for models that are built for one size; None means timm's default.

    Raises:
        ConfigError: If timm has no such model.
        WeightsError: If the weights cannot be obtained.
    """
    import timm
    from huggingface_hub import constants

    if not timm.is_model(name):
        close = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5))
        raise ConfigError(f"timm has no model {name!r}.{f' Did you mean one of {close}?' if close else ''}")
    cfg = timm.get_pretrained_cfg(name)
    # Vision transformers are built for one image size; other models do not have this argument.
    size: dict[str, Any] = {"img_size": image_size} if image_size and cfg and cfg.fixed_input_size else {}
    if not pretrained:
        return timm.create_model(name, **size).eval()
    repo = cfg.hf_hub_id if cfg else None
    reason = None
    try:
        with offline_if_unreachable() as reason:
            return timm.create_model(name, pretrained=True, **size).eval()
    except Exception as error:  # the hub, its cache and timm each raise their own
        if problem := disk_problem(error):
            raise not_saved(f"timm's {name}", Path(constants.HF_HUB_CACHE), problem, "HF_HOME") from error
        how = f"On a machine with network access, run `hf download {repo}`, then set model.weights to its file."
        raise WeightsError(
            f"The pretrained weights of timm's {name} are not in the cache and cannot be downloaded"
            f"{f' ({reason})' if reason else ''}. {how if repo else 'None are published.'} Or set model.weights=random."
        ) from error


def timm_preprocessing(network: Any, image_size: int | None) -> Preprocessing:
    """Return timm's evaluation transform: short side to size / crop_pct, then a centre crop."""
    cfg = network.pretrained_cfg
    size = image_size or cfg["input_size"][-1]
    resize = int(size / cfg.get("crop_pct", 1.0))
    return Preprocessing(size, resize, cfg["interpolation"], tuple(cfg["mean"]), tuple(cfg["std"]))
