"""Without a network, a command says so in one line within seconds; offline mode holds for every download."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from web import Server

from stylesim.core.errors import WeightsError
from stylesim.encoders.backbones.timm_backbone import timm_network
from stylesim.encoders.weights import network
from stylesim.encoders.weights.locate import locate
from stylesim.encoders.weights.network import offline_if_unreachable, why_unreachable
from stylesim.encoders.weights.published import WeightSource
from stylesim.encoders.weights.weight_keywords import check_model_weights


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as server:  # bound, but not listening: connections are refused
        server.bind(("127.0.0.1", 0))
        yield server.getsockname()[1]


def test_server_that_answers_is_reachable():
    with Server(b"") as server:
        assert why_unreachable(server.url) is None


def test_server_that_refuses_is_not_reachable(closed_port: int):
    assert why_unreachable(f"https://127.0.0.1:{closed_port}/x") == "127.0.0.1 cannot be reached: Connection refused"


def test_unknown_name_is_not_reachable():
    assert str(why_unreachable("https://no-such-host.invalid/x")).startswith("no-such-host.invalid cannot be reached: ")


@pytest.mark.parametrize("function", ["create_connection", "getaddrinfo"])
def test_server_that_does_not_answer_is_given_up(function: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(network, "SECONDS", 0.05)
    monkeypatch.setattr(socket, function, lambda *args, **kwargs: time.sleep(2))
    assert (
        why_unreachable("https://huggingface.co") == "huggingface.co cannot be reached: no answer within 0.05 seconds"
    )


def test_proxy_is_what_must_be_reachable(closed_port: int, monkeypatch: pytest.MonkeyPatch):
    with Server(b"") as server:
        monkeypatch.setenv("https_proxy", server.url)
        assert why_unreachable("https://no-such-host.invalid") is None
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{closed_port}")  # curl and requests accept this form too
        assert why_unreachable("https://no-such-host.invalid") == (
            "no-such-host.invalid over the proxy 127.0.0.1 cannot be reached: Connection refused"
        )
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port}")
        assert why_unreachable(server.url) is None


def test_offline_mode_holds_for_every_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with Server(b"weights") as server:
        source = WeightSource("net", "net.pth", "MIT", url=server.url)
        for key in ("model.weights", "model.backbone"):
            message = rf"cannot be downloaded \(HF_HUB_OFFLINE is set\): .* or set {key} to its path\."
            with pytest.raises(WeightsError, match=message):
                locate(source, tmp_path, key)
        assert not server.requests


def test_client_of_the_hub_is_offline_only_while_the_hub_is_unreachable(
    closed_port: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed_port}")
    with offline_if_unreachable() as reason:
        assert constants.is_offline_mode()
    assert reason == "127.0.0.1 cannot be reached: Connection refused"
    assert not constants.is_offline_mode()
    with Server(b"") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        with offline_if_unreachable() as reason:
            assert not constants.is_offline_mode()
        assert reason is None


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import stylesim; stylesim.load_encoder('csd_vitl')", "and set weights to its path."),
        ("import runpy, sys; sys.argv[1:] = ['model=csd_vitl', 'data=folder', 'data.root=.', 'csd_weights=official']\n"
         "runpy.run_module('stylesim.evaluate', run_name='__main__')", "and set model.weights to its path."),
    ],
)  # fmt: skip
def test_missing_network_is_one_line(code: str, sentence: str, closed_port: int, tmp_path: Path):
    environ = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    environ["HF_ENDPOINT"] = f"http://127.0.0.1:{closed_port}"
    guard = f"import sys\ntry:\n{_indent(code)}\nexcept ValueError as error: print(error, file=sys.stderr); sys.exit(2)"
    result = subprocess.run(
        [sys.executable, "-c", guard], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert "cannot be downloaded (127.0.0.1 cannot be reached: Connection refused)" in line
    assert sentence in line


def _indent(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.splitlines())


def test_timm_does_not_try_the_hub_again_and_again(
    closed_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        WeightsError, match=r"downloaded \(127\.0\.0\.1 cannot be reached: .*`hf download timm/resnet18"
    ):
        timm_network("resnet18", pretrained=True, image_size=None)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_answer_of_the_hub_is_quoted_without_trying_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with Server(b"") as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"{server.url}/missing")
        monkeypatch.setattr(
            "huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", "{endpoint}/{repo_id}", raising=False
        )
        source = WeightSource("net", "net.pth", "MIT", repo="somebody/net")
        with pytest.raises(
            WeightsError, match=r"not in the cache and cannot be downloaded \(.*\): net\.pth of the Hug"
        ):
            locate(source, tmp_path)


@pytest.mark.parametrize(("prefix", "key"), [("", "backbone"), ("model.", "model.backbone")])
def test_missing_backbone_is_named_by_its_own_key(
    prefix: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "mappers.pth").touch()
    model = {"_target_": "gda_dino", "weights": str(tmp_path / "mappers.pth"), "backbone": "official"}
    with pytest.raises(WeightsError, match=rf"DINO ViT-B-16 .*, or set {key} to its path\."):
        check_model_weights({**model, "cache_dir": str(tmp_path)}, prefix)
