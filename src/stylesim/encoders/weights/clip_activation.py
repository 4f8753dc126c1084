"""Find out which activation a CLIP file was trained with; the shapes of its tensors do not tell.

OpenAI trained with QuickGELU, `x * sigmoid(1.702 x)`; most models of open_clip (LAION, DataComp) with GELU. The wrong
one raises no error, but gives the descriptors of a slightly different network.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from pathlib import Path
from typing import Literal, get_args

from stylesim.core.errors import ConfigError
from stylesim.core.ranks import is_main_process
from stylesim.encoders.weights.weight_formats import WeightFile
from stylesim.encoders.weights.weight_keywords import FoundWeights

logger = logging.getLogger(__name__)

Activation = Literal["quickgelu", "gelu"]


def clip_activation(
    activation: Activation | None, found: FoundWeights, file: WeightFile | None, architecture: str
) -> Activation:
    """Return the activation to build a CLIP tower with.

    Args:
        activation: The user's choice, which wins; None means that of the weights.
        found: Where the weights come from. Published ones state their activation.
        file: The weights, if they come from a file. The activation is looked up in the file itself, in the
            configuration of transformers or open_clip beside it, and among the published files that open_clip lists.
        architecture: Name of the architecture, such as `ViT-B-16`.

    Returns:
        `quickgelu` where nothing states it, with a warning if there is a file.

    Raises:
        ConfigError: If the user's choice is unknown.
    """
    if activation is not None and activation not in get_args(Activation):
        raise ConfigError(f"activation must be one of {', '.join(get_args(Activation))} or null, got {activation!r}.")
    stated = found.activation
    if file is not None and stated is None:
        stated = file.activation or _beside(file.path) or _listed_by_open_clip(file.path, found.digest, architecture)
    if file is not None and stated is None and activation is None:
        _warn(
            f"{file.path} does not state whether it was trained with QuickGELU, as OpenAI's CLIP, or with GELU, as "
            f"most weights of open_clip and LAION: QuickGELU is used. The wrong one gives other descriptors. Set "
            f"model.activation to quickgelu or gelu (in Python, activation=...)."
        )
    if activation and stated and activation != stated:
        _warn(
            f"model.activation={activation} is used, although the weights"
            f"{f' in {file.path}' if file else ''} were trained with {stated}: the descriptors are those of another "
            f"network. Remove the setting to use {stated}."
        )
    return activation or ("gelu" if stated == "gelu" else "quickgelu")


def _beside(path: Path) -> Activation | None:
    """Return the activation in the configuration that transformers or open_clip publish beside their weights."""
    config = _json(path.with_name("config.json"))
    if config.get("model_type") in ("clip", "clip_vision_model"):
        vision = config.get("vision_config") or config
        name = vision.get("hidden_act", "quick_gelu")  # the default of transformers, which it does not always write
        return {"quick_gelu": "quickgelu", "gelu": "gelu"}.get(name)  # type: ignore[return-value]
    if model := _json(path.with_name("open_clip_config.json")).get("model_cfg"):
        return "quickgelu" if model.get("quick_gelu") else "gelu"
    return None


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _listed_by_open_clip(path: Path, digest: str | None, architecture: str) -> Activation | None:
    """Return the activation of a file that open_clip lists, recognised by its SHA-256 or its folder in the cache."""
    for published in _published(architecture):
        known_digests = re.findall(r"[0-9a-f]{64}|(?<=-)[0-9a-f]{8}(?=\.pth?$)", published.get("url") or "")
        folder = "models--" + (published.get("hf_hub") or "").strip("/").replace("/", "--")
        if any((digest or "").startswith(known) for known in known_digests) or folder in path.absolute().parts:
            return "quickgelu" if published.get("quick_gelu") else "gelu"
    return None


def _published(architecture: str) -> list[dict]:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(architecture)
    return [open_clip.get_pretrained_cfg(architecture, tag) for tag in tags]


@functools.cache  # once per process
def _warn(sentence: str) -> None:
    if is_main_process():
        logger.warning("%s", sentence)
