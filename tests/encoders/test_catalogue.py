"""The list of encoders: complete, true, and made without torch or network access."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import stylesim
from stylesim.core.conf import conf_dir
from stylesim.encoders.catalogue import ModelInfo
from stylesim.encoders.load import model_config


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, ModelInfo]:
    """The list on a machine with empty caches."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("STYLESIM_CACHE", str(tmp_path))
    return {model.name: model for model in stylesim.list_models()}


def test_list_covers_every_configuration(models: dict[str, ModelInfo]):
    assert list(models) == sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml"))
    assert all(model.summary and model.dim and model.parameters is not None for model in models.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # a copy into a network without storage does nothing, as torch warns
def test_stated_sizes_are_those_of_the_encoders(models: dict[str, ModelInfo]):
    for name, stated in models.items():
        model = OmegaConf.create({"model": model_config(name)}).model
        if "weights" in model:
            model.weights = "random"
        with torch.device("meta"):
            encoder = instantiate(model)
        parameters = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
        assert stated.dim == encoder.dim, name
        assert stated.parameters == pytest.approx(parameters, abs=0.06), name


@pytest.mark.parametrize(
    ("name", "weights", "location", "licence", "trained_on"),
    [
        ("csd_vitl", "not downloaded", "https://huggingface.co/tomg-group-umd/CSD-ViT-L", "MIT", "LAION-Styles"),
        ("csd_vitb", "to be trained", None, "MIT", None),
        ("csd_lite0", "to be trained", None, "Apache-2.0", None),
        ("csd_timm", "to be trained", None, None, None),
        ("csd_sscd", "to be trained", None, "MIT", None),
        ("dino_vitb8", "not downloaded", "https://dl.fbaipublicfiles.com/dino/", "Apache-2.0", "ImageNet-1k"),
        ("gda_vit", "not downloaded", "vit_base_patch16_384", "CC-BY-NC-SA-4.0", "generated"),
        ("frozen_lite0", "here", "efficientnet-lite0-57934424.pth", "Apache-2.0", "ImageNet-1k"),
        ("random_vitb", "none needed", None, None, None),
        ("palette", "none needed", None, None, None),
    ],
)
def test_status_of_the_weights(
    name: str,
    weights: str,
    location: str | None,
    licence: str | None,
    trained_on: str | None,
    models: dict[str, ModelInfo],
):
    model = models[name]
    assert (model.weights, model.licence) == (weights, licence)
    for stated, expected in ((model.location, location), (model.trained_on, trained_on)):
        assert stated is None if expected is None else expected in str(stated)


def test_downloaded_weights_are_found(models: dict[str, ModelInfo], tmp_path: Path):
    assert models["sscd_rn50"].weights == models["sscd_reference"].weights == "not downloaded"
    path = tmp_path / "stylesim" / "sscd_disc_mixup.torchscript.pt"
    path.parent.mkdir()
    path.touch()
    model = next(model for model in stylesim.list_models() if model.name == "sscd_reference")
    assert (model.weights, model.location) == ("here", str(path))


def test_list_does_not_import_torch():
    code = "import stylesim, sys; assert stylesim.list_models(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
