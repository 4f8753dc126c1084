"""Caches that cannot be written or are full are told from a missing network, with the place and how to move it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from web import Server, tar_of

from stylesim.core.errors import WeightsError
from stylesim.encoders.weights import cache_folders
from stylesim.encoders.weights.cache_folders import disk_problem, require_writable
from stylesim.encoders.weights.locate import locate, present
from stylesim.encoders.weights.published import CLIP, WeightSource
from stylesim.encoders.weights.weight_keywords import check_model_weights


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def a_file(folder: Path) -> Path:
    (folder / "file").write_text("not a folder")
    return folder / "file"


class FullDisk:
    """A file that can be opened, but not written."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # without a file name, as from write(2)


def fails_with(number: int) -> Callable[..., Any]:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number), "/cache/x")

    return fail


def test_cache_of_urls_that_is_no_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STYLESIM_CACHE", str(a_file(tmp_path)))
    with Server(b"weights") as server:
        source = WeightSource("net", "net.pth", "MIT", url=server.url)
        message = rf"weights of net cannot be saved in {tmp_path}/file/stylesim \(.*variable STYLESIM_CACHE to a folder"
        with pytest.raises(WeightsError, match=message):
            locate(source)
        assert not server.requests


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.EACCES, "Permission denied"), (errno.EROFS, "Read-only"), (errno.ENOSPC, "No space")]
)
def test_cache_that_cannot_be_written_is_not_called_a_missing_network(
    number: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cache_folders, "TemporaryFile", fails_with(number))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with Server(b"weights") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        model = {"_target_": "csd_clip", "weights": "clip", "architecture": "ViT-B-16"}
        message = rf"OpenAI CLIP ViT-B-16 cannot be saved in {tmp_path} \({reason}.*environment variable HF_HOME"
        with pytest.raises(WeightsError, match=message):
            check_model_weights(model)
        with pytest.raises(WeightsError, match=message):
            locate(CLIP["ViT-B-16"])


def test_disk_that_fills_during_the_download_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = write(path, mode, *args, **kwargs)
        return FullDisk(file) if path.name.endswith(".partial") else file

    monkeypatch.setattr(Path, "open", full)
    with Server(b"weights") as server:
        source = WeightSource("net", "net.pth", "MIT", url=server.url)
        with pytest.raises(
            WeightsError, match=r"net cannot be saved in .*/stylesim \(No space left on device\)\. Make"
        ):
            locate(source, tmp_path)
        assert len(server.requests) == 1  # a full disk is not a broken connection, which is tried again


def test_member_that_cannot_be_extracted_does_not_blame_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "stylesim" / "gda").mkdir(parents=True)
    (tmp_path / "stylesim" / "gda" / "weights.tar.gz").write_bytes(tar_of({"mapper/a.pth": b"a"}))
    monkeypatch.setattr(shutil, "copyfileobj", fails_with(errno.ENOSPC))
    source = WeightSource("net", "gda/weights.tar.gz", "MIT", url="http://x", member="mapper/a.pth")
    with pytest.raises(WeightsError, match=r"net cannot be saved in .*/gda \(No space left on device\)"):
        locate(source, tmp_path)


def test_disk_without_room_for_the_file_is_refused_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=300_000_000))
    with pytest.raises(WeightsError, match=r"it needs 2\.44 GB, and 0\.30 GB are free"):
        require_writable(tmp_path, "CSD", "HF_HOME", 2_438_228_893)
    require_writable(tmp_path, "CSD", "HF_HOME", 299_000_000)
    assert not list(tmp_path.iterdir())


def test_read_only_cache_with_the_file_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "stylesim").mkdir()
    (tmp_path / "stylesim" / "net.pth").write_bytes(b"weights")
    monkeypatch.setattr(cache_folders, "TemporaryFile", fails_with(errno.EROFS))
    source = WeightSource("net", "net.pth", "MIT", url="http://no-such-host.invalid")
    assert locate(source, tmp_path).read_bytes() == b"weights"


def test_home_folder_is_understood_as_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c" / "stylesim").mkdir(parents=True)
    (tmp_path / "c" / "stylesim" / "net.pth").write_bytes(b"weights")
    source = WeightSource("net", "net.pth", "MIT", url="http://no-such-host.invalid")
    assert present(source, "~/c") == tmp_path / "c" / "stylesim" / "net.pth"


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/cache"), "Permission denied"),
        (PermissionError(errno.EACCES, "Permission denied"), None),  # of a socket, behind a firewall
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), None),
        (TimeoutError("timed out"), None),
        (ValueError("x"), None),
    ],
)
def test_errors_of_the_disk_are_told_from_those_of_the_network(error: Exception, problem: str | None):
    assert disk_problem(error) == problem
    wrapped = RuntimeError("the client's own class")
    wrapped.__cause__ = error
    assert disk_problem(wrapped) == problem
