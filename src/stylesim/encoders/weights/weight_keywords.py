"""What the option `weights` of a model means: a keyword for a published file, no file, or a path.

Imports no torch, because configurations are checked before torch is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from os.path import isfile  # unlike Path.is_file, it is False in a folder that cannot be entered
from pathlib import Path
from typing import Any, NamedTuple

from stylesim.core.errors import WeightsError
from stylesim.core.files import sha256_of_file
from stylesim.encoders.backbones.vit_shapes import vit_shape
from stylesim.encoders.weights.locate import locate, require_obtainable
from stylesim.encoders.weights.published import GDA_BACKBONES, KNOWN_WORDS, LITE0, WeightSource, Word

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar")


class FoundWeights(NamedTuple):
    """The file that a value of `weights` stands for, its SHA-256, and the licence and activation of published files.

    All are None for `random`, and for a keyword whose weights are not managed here (timm's `pretrained`).
    """

    path: Path | None = None
    digest: str | None = None
    licence: str | None = None
    activation: str | None = None


def find_weights(
    words: Mapping[str, Word],
    weights: str,
    architecture: str | Mapping[str, int] | None = None,
    cache_dir: str | Path | None = None,
) -> FoundWeights:
    """Find the file that `weights` stands for, and download it if necessary.

    Args:
        words: The keywords of the factory, as in KNOWN_WORDS.
        weights: One of the keywords, or a path.
        architecture: Architecture of the model, for keywords that have one file per architecture.
        cache_dir: Folder of downloaded weights.

    Raises:
        WeightsError: If `weights` is neither a keyword nor a file, or the file cannot be obtained.
    """
    require_weights(weights, words)
    if weights not in words:
        path = Path(weights).expanduser()
        return FoundWeights(path, sha256_of_file(path))
    source = source_of(words, weights, architecture)
    if source is None:
        return FoundWeights()
    path = locate(source, cache_dir)
    checked = source.sha256 if len(source.sha256 or "") == 64 and not source.member else None
    return FoundWeights(path, checked or sha256_of_file(path), source.licence, source.activation)


def needed_sources(model: Mapping[str, Any], prefix: str = "") -> list[WeightSource]:
    """Return the published files that a model needs, the one that determines its licence first.

    Args:
        model: Configuration of the model: `_target_` and its options.
        prefix: What stands before the keys of the model, for messages: `model.` in commands.

    Raises:
        WeightsError: If a keyword is unknown, a path does not exist, or nothing is published for the architecture.
        ConfigError: If the architecture is unknown.
    """
    factory, weights, backbone = model["_target_"].rpartition(".")[2], model.get("weights"), model.get("backbone")
    if factory == "frozen_lite0":
        return [LITE0]
    words = KNOWN_WORDS.get(str(backbone) if factory == "csd_on" else factory)
    if words is None or weights is None:
        return []
    key = f"{prefix}weights"
    require_weights(weights, words, key)
    sources = [source_of(words, weights, model.get("architecture"), key)] if weights in words else []
    if factory in GDA_BACKBONES and backbone and weights != "random":
        require_weights(backbone, ["official"], f"{prefix}backbone")
        sources += [GDA_BACKBONES[factory]] if backbone == "official" else []
    return [source for source in sources if source]


def check_model_weights(model: Mapping[str, Any], prefix: str = "") -> None:
    """Check that the weights of a model are on this machine, or that their server can be reached and the cache written.

    Args:
        model: Configuration of the model: `_target_` and its options.
        prefix: What stands before the keys of the model, for messages: `model.` in commands.

    Raises:
        WeightsError: If they are not; the message says where to get them and where to put them.
        ConfigError: If the architecture is unknown.
    """
    cache_dir = model.get("cache_dir")
    for source in needed_sources(model, prefix):
        is_backbone = source == GDA_BACKBONES.get(model["_target_"].rpartition(".")[2])
        require_obtainable(source, cache_dir, f"{prefix}{'backbone' if is_backbone else 'weights'}")


def require_weights(weights: str, words: Iterable[str], key: str = "weights") -> None:
    """Raise a WeightsError if `weights` is neither one of `words` nor the path of a file that can be read."""
    path = Path(weights).expanduser()
    if weights in words or (isfile(path) and os.access(path, os.R_OK)):
        return
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES)
        found = f"It contains {', '.join(files[:5])}" if files else f"It contains no {', '.join(WEIGHT_SUFFIXES)} file"
        raise WeightsError(f"{key} must be a file, got the folder {weights}. {found}.")
    if isfile(path):
        raise WeightsError(f"{key}={weights} cannot be read: this user has no permission to read the file.")
    raise WeightsError(f"{key} must be one of {', '.join(words)}, or an existing file, got {weights!r}.")


def source_of(
    words: Mapping[str, Word],
    word: str,
    architecture: str | Mapping[str, int] | None = None,
    key: str = "weights",
) -> WeightSource | None:
    """Return the file that a keyword stands for; None if it stands for no file (`random`, timm's `pretrained`).

    Raises:
        WeightsError: If nothing is published for the architecture.
        ConfigError: If the architecture is unknown.
    """
    meaning = words[word]
    if not isinstance(meaning, Mapping):
        return meaning
    name = vit_shape(architecture or "ViT-B-16").name
    if name not in meaning:
        raise WeightsError(
            f"{key}={word} is published only for {', '.join(meaning)}, not for the architecture {name}. Choose "
            f"one of these, {key}=random, or the path of a file."
        )
    return meaning[name]
