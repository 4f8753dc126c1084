"""What keywords of weights mean, and what is refused before torch is imported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stylesim.core.errors import StylesimError, WeightsError
from stylesim.encoders.weights.published import CSD_OFFICIAL, KNOWN_WORDS
from stylesim.encoders.weights.weight_keywords import check_model_weights, source_of


@pytest.mark.parametrize(
    ("target", "weights", "architecture", "message"),
    [
        (
            "csd_clip",
            "/no/such.bin",
            "ViT-B-16",
            "weights must be one of clip, official, random, or an existing file, got '/no/such.bin'",
        ),
        (
            "csd_clip",
            "official",
            "ViT-B-16",
            "weights=official is published only for ViT-L-14, not for the architecture ViT-B-16",
        ),
        ("csd_clip", "clip", "ViT-test", "not for the architecture ViT-test"),
        ("csd_clip", "clip", "ViT-Z", "got 'ViT-Z'"),
        ("csd_clip", "clip", "ViT-B-16", "hf download timm/vit_base_patch16_clip_224.openai"),
        ("csd_clip", "official", "ViT-L-14", "hf download tomg-group-umd/CSD-ViT-L pytorch_model.bin"),
        ("csd_lite0", "clip", None, "one of imagenet, random"),
        ("csd_timm", "official", None, "one of pretrained, random"),
        ("clip_vit", "official", "ViT-B-32", "hf download timm/vit_base_patch32_clip_224.openai"),
        ("dino_vitb8", "official", None, "download https://dl.fbaipublicfiles.com/dino/dino_vitbase8_pretrain/"),
        ("moco_vitb", "official", None, "(CC-BY-NC-4.0) are not in the cache"),
        ("gda_clip", "official", None, "put the file at {cache}/stylesim/gda/weights.tar.gz."),
        ("vgg_gram", "official", None, "{cache}/stylesim/vgg16-397923af.pth, or set weights to its path."),
    ],
)
def test_unavailable_weights_are_explained(
    target: str, weights: str, architecture: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = {"_target_": f"stylesim.encoders.{target}", "weights": weights, "architecture": architecture}
    with pytest.raises(StylesimError, match=re.escape(message.format(cache=tmp_path))):
        check_model_weights({**model, "cache_dir": str(tmp_path)})


def test_available_weights_pass_the_check(tmp_path: Path):
    file = str(tmp_path / "w.bin")
    Path(file).touch()
    for model in (
        {"_target_": "stylesim.encoders.csd_factories.csd_clip", "weights": file},
        {"_target_": "csd_clip", "weights": "random", "architecture": {"width": 8}},
        {"_target_": "csd_lite0", "weights": "imagenet"},
        {"_target_": "csd_timm", "weights": "pretrained"},
        {"_target_": "frozen_lite0"},
        {"_target_": "ink_box"},
        {"_target_": "gda_vit", "weights": "random", "backbone": "official"},
        {"_target_": "gda_vit", "weights": file, "backbone": file},
    ):
        check_model_weights(model)


def test_backbone_of_a_mapper_is_checked_too(tmp_path: Path):
    file = tmp_path / "mapper.pth"
    file.touch()
    model = {"_target_": "gda_dino", "weights": str(file), "cache_dir": str(tmp_path)}
    with pytest.raises(WeightsError, match=r"dino_vitbase16_pretrain\.pth"):
        check_model_weights({**model, "backbone": "official"})
    with pytest.raises(WeightsError, match="backbone must be one of official, or an existing file, got '/no/such'"):
        check_model_weights({**model, "backbone": "/no/such"})


def test_csd_on_a_baseline_needs_the_weights_of_the_baseline(tmp_path: Path):
    model = {"_target_": "csd_on", "weights": "official", "cache_dir": str(tmp_path), "backbone": "sscd_rn50"}
    with pytest.raises(WeightsError, match=r"sscd_disc_mixup\.torchscript\.pt"):
        check_model_weights(model)


def test_official_file_is_the_released_checkpoint():
    assert source_of(KNOWN_WORDS["csd_clip"], "official", "ViT-L-14") == CSD_OFFICIAL["ViT-L-14"]
    assert str(CSD_OFFICIAL["ViT-L-14"].sha256).startswith("40e92fad63a361b8")
    assert source_of(KNOWN_WORDS["csd_clip"], "random") is None


def test_check_does_not_import_torch():
    code = (
        "import sys; from stylesim.encoders.weights.weight_keywords import check_model_weights;"
        "check_model_weights({'_target_': 'stylesim.encoders.csd_factories.csd_lite0', 'weights': 'imagenet'});"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
