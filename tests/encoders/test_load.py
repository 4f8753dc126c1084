"""load_encoder: by name, from a checkpoint, and its error messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import stylesim
from stylesim.core.conf import conf_dir
from stylesim.core.errors import ConfigError, StylesimError
from stylesim.core.targets import check_targets
from stylesim.encoders.controls import color_histogram
from stylesim.encoders.csd_factories import csd_clip
from stylesim.encoders.load import load_encoder, model_config
from stylesim.encoders.weights.checkpoint import export_csd, save_weights

SMALL = {"architecture": "ViT-test", "image_size": 32}
IMAGES = [Image.effect_noise((40, 50), sigma).convert("RGB") for sigma in (20, 80, 120)]


@pytest.mark.parametrize("name", sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml")))
def test_every_configuration_fits_its_factory(name: str):
    model = model_config(name)
    assert model._target_.startswith("stylesim.encoders.")
    check_targets(OmegaConf.create({"model": model}))


def test_encoder_is_loaded_by_name_with_options():
    encoder = stylesim.load_encoder("color_histogram", bins=4, device="cpu")
    assert encoder.dim == 64
    assert torch.equal(encoder.encode(IMAGES), color_histogram(bins=4).encode(IMAGES))
    assert not encoder.training


def test_defaults_lists_are_followed():
    assert model_config("gram_lite0").readout == "gram"
    assert model_config("gram_lite0").image_size == model_config("frozen_lite0").image_size


def test_csd_weights_are_clip_for_training_and_official_elsewhere():
    model = model_config("csd_vitl")
    assert OmegaConf.create({"model": model}).model.weights == "clip"
    assert OmegaConf.create({"model": model, "csd_weights": "official"}).model.weights == "official"


def test_published_csd_file_is_loaded_by_name(tmp_path: Path):
    path = tmp_path / "pytorch_model.bin"
    original = csd_clip(weights="random", **SMALL)
    export_csd(original, path)
    encoder = load_encoder("csd_vitl", weights=str(path), **SMALL)
    assert torch.equal(encoder.encode(IMAGES), original.encode(IMAGES))
    assert encoder.provenance.trained_head
    larger = load_encoder("csd_vitl", weights=str(path), architecture="ViT-test", image_size=48)
    assert larger.encode(IMAGES).shape == (3, 32)


def test_checkpoint_is_loaded_by_path(tmp_path: Path):
    path = tmp_path / "best.safetensors"
    original = csd_clip(weights="random", **SMALL)
    save_weights(original, path, {"step": "3"})
    assert torch.equal(load_encoder(path).encode(IMAGES), original.encode(IMAGES))
    with pytest.raises(ConfigError, match=r"best\.safetensors is a checkpoint, so weights and options"):
        load_encoder(path, image_size=48)


def test_bfloat16_gives_similar_descriptors():
    full, half = (load_encoder("random_vitb", device="cpu", dtype=dtype, **SMALL) for dtype in (None, "bfloat16"))
    descriptors = half.encode(IMAGES)
    assert descriptors.dtype == torch.float32
    assert half.dtype == next(half.parameters()).dtype == torch.bfloat16
    assert (descriptors * full.encode(IMAGES)).sum(dim=1).min() > 0.999
    with pytest.raises(ConfigError, match=r"dtype must be one of .* got 'int8'"):
        load_encoder("color_histogram", dtype="int8")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("csd_vitz", {}, r"no file and no model named 'csd_vitz'\. Did you mean 'csd_vit"),
        ("no/such.safetensors", {}, "no file and no model named 'no/such.safetensors'"),
        ("color_histogram", {"binz": 3}, "model.binz is not a parameter of .* Did you mean 'bins'"),
        ("color_histogram", {"bins": "many"}, "model.bins must be an integer, got 'many'"),
        ("csd_vitb", {}, "weights=official is published only for ViT-L-14, not for the architecture ViT-B-16"),
        ("csd_vitl", {}, "hf download tomg-group-umd/CSD-ViT-L pytorch_model.bin"),
        ("dino_vitb16", {}, "download https://dl.fbaipublicfiles.com/dino/"),
        ("csd_lite0", {}, "head of csd_lite0 has not been trained: .* weights='imagenet'"),
    ],
)
def test_failures_are_explained(
    name: str, options: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("STYLESIM_CACHE", str(tmp_path))
    with pytest.raises(StylesimError, match=message):
        load_encoder(name, **options)  # type: ignore[arg-type]


def test_untrained_head_is_loaded_on_request():
    assert not load_encoder("csd_vitb", weights="random", **SMALL).provenance.trained_head


def test_missing_weights_are_reported_before_torch_is_imported():
    code = (
        "import stylesim, sys\n"
        "try: stylesim.load_encoder('csd_vitb')\n"
        "except stylesim.StylesimError: assert 'torch' not in sys.modules\n"
        "else: raise SystemExit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_paths_begin_in_the_home_folder_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    original = csd_clip(weights="random", **SMALL)
    export_csd(original, tmp_path / "csd.bin")
    save_weights(color_histogram(bins=4), tmp_path / "a.safetensors")
    assert load_encoder("~/a.safetensors").dim == 64
    assert load_encoder("csd_vitl", weights="~/csd.bin", **SMALL).digest() == original.digest()


def test_folders_given_as_files_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"is a folder: name the file in it, such as checkpoints/best\.safetensors"):
        load_encoder(tmp_path)
    with pytest.raises(StylesimError, match=r"weights must be a file, got the folder .* no \.safetensors, .* file"):
        load_encoder("csd_vitl", weights=str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(StylesimError, match=r"got the folder .*\. It contains model\.safetensors\."):
        load_encoder("csd_vitl", weights=str(tmp_path))
