"""Devices that are not there are refused in a sentence, in Python and in commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

import stylesim
from stylesim.core.devices import find_device, pick_device
from stylesim.core.errors import ConfigError
from stylesim.data.sample import Sample
from stylesim.encoders.controls import color_histogram
from stylesim.evaluation.embed import embed

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")


def test_auto_is_the_best_device_of_the_machine():
    assert find_device("auto") == pick_device()
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", ""])
def test_unknown_device_is_refused(device: str):
    with pytest.raises(ConfigError, match=f"device must be auto, cpu, cuda, cuda:N or mps, got '{device}'"):
        find_device(device)


@pytest.mark.parametrize("device", ["cuda:99", "xpu"])
def test_missing_device_is_refused_with_those_that_exist(device: str):
    with pytest.raises(ConfigError, match=rf"^device={device} cannot be used: .+\. Use auto, or .*: .*cpu\.$"):
        find_device(device)


@no_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_without_a_driver_is_a_sentence_everywhere(device: str):
    with pytest.raises(ConfigError, match=f"device={device} cannot be used"):
        stylesim.load_encoder("color_histogram", device=device)
    with pytest.raises(ConfigError, match=f"device={device} cannot be used"):
        embed(color_histogram(), [Sample("a", Image.new("RGB", (9, 9)))], device=device)


@no_cuda
@pytest.mark.parametrize("command", ["embed", "evaluate"])
def test_commands_refuse_cuda_without_a_driver(command: str, composed: Callable[..., DictConfig], tmp_path: Path):
    from importlib import import_module

    for style in ("monet", "seurat"):
        (tmp_path / style).mkdir()
        for index in range(8):
            Image.effect_noise((40, 40), 50).save(tmp_path / style / f"{index}.png")
    data = {
        "embed": [f"images={tmp_path}", f"out={tmp_path / 'out'}"],
        "evaluate": ["data=folder", f"data.root={tmp_path}"],
    }
    cfg = composed("model=color_histogram", "device=cuda", *data[command], config=command)
    with pytest.raises(ConfigError, match="device=cuda cannot be used"):
        import_module(f"stylesim.{command}").main(cfg)
