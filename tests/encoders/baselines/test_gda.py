"""GDA: files in the published format give `normalise(W backbone(x) + b)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from web import tar_of

from stylesim.core.errors import ConfigError, WeightsError
from stylesim.encoders.backbones.clip_tower import clip_preprocessing
from stylesim.encoders.backbones.vision_transformer import vit
from stylesim.encoders.backbones.vit_shapes import ViTShape
from stylesim.encoders.baselines import dino_and_moco
from stylesim.encoders.baselines.clip_baseline import clip_vit
from stylesim.encoders.baselines.gda import VIT_B_16_384, gda_clip, gda_dino, gda_vit, mapped
from stylesim.encoders.weights.checkpoint import load_checkpoint, save_weights

SMALL = ViTShape(width=24, layers=2, heads=2, patch=16, image=48, embed=24, name="ViT-B-16")


def write_mappers(path: Path, dim: int) -> dict[str, nn.Linear]:
    """Write a file as the authors publish it: a dict of two state dicts of `Linear(dim, dim)`."""
    mappers = {name: nn.Linear(dim, dim) for name in ("real", "synth")}
    torch.save({f"{name}_mapper": mapper.state_dict() for name, mapper in mappers.items()}, path)
    return mappers


@pytest.fixture
def small_vit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> VisionTransformer:
    """A small timm transformer that replaces the ViT-B ones; its weights, classifier included, are in `vit.pth`."""
    monkeypatch.setattr(dino_and_moco, "VIT_B_16", SMALL)
    monkeypatch.setattr("stylesim.encoders.baselines.gda.VIT_B_16_384", SMALL)
    network = VisionTransformer(img_size=48, patch_size=16, embed_dim=24, depth=2, num_heads=2, num_classes=7).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    return network


@pytest.mark.parametrize("mapper", ["real", "synth"])
def test_clip_is_followed_by_the_chosen_mapper(mapper: str, tmp_path: Path):
    start, path = clip_vit(architecture="ViT-test", weights="random"), tmp_path / "clip_tuned.pth"
    mappers = write_mappers(path, 32)
    encoder = mapped("gda_clip", lambda weights: start, str(path), mapper, "backbone.pth", None)
    images = torch.randn(2, 3, 32, 32)
    features = start.network(images)
    linear = mappers[mapper]
    expected = F.normalize(features @ linear.weight.T + linear.bias, dim=-1)
    torch.testing.assert_close(encoder(images), expected, atol=1e-6, rtol=1e-5)
    assert encoder.preprocessing == start.preprocessing
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize(("build", "head"), [(gda_vit, True), (gda_dino, False)])
def test_transformers_are_loaded_from_their_files(build: Any, head: bool, small_vit: Any, tmp_path: Path):
    mappers = write_mappers(tmp_path / "m.pth", 24)
    if not head:  # DINO publishes its backbone alone
        small_vit.reset_classifier(0)
        torch.save(small_vit.state_dict(), tmp_path / "vit.pth")
    encoder = build(weights=str(tmp_path / "m.pth"), backbone=str(tmp_path / "vit.pth"))
    images = torch.randn(2, 3, 48, 48)
    features = small_vit.forward_features(images)[:, 0]
    expected = F.normalize(features @ mappers["real"].weight.T + mappers["real"].bias, dim=-1)
    torch.testing.assert_close(encoder(images), expected, atol=1e-5, rtol=1e-4)
    larger = build(weights=str(tmp_path / "m.pth"), backbone=str(tmp_path / "vit.pth"), image_size=80)
    small_vit.set_input_size(img_size=80)
    images = torch.randn(2, 3, 80, 80)
    features = small_vit.forward_features(images)[:, 0]
    expected = F.normalize(features @ mappers["real"].weight.T + mappers["real"].bias, dim=-1)
    torch.testing.assert_close(larger(images), expected, atol=1e-5, rtol=1e-4)


def test_preprocessing_is_that_of_the_backbone(small_vit: Any):
    half = (0.5, 0.5, 0.5)
    preprocessing = gda_vit(weights="random").preprocessing
    assert (preprocessing.short_side, preprocessing.interpolation) == (48, "bilinear")
    assert preprocessing.mean == preprocessing.std == half
    assert gda_dino(weights="random", image_size=224).preprocessing.short_side == 256
    assert gda_dino(weights="random").preprocessing.interpolation == "bicubic"


def test_keys_and_shapes_equal_the_published_vit():
    with torch.device("meta"):
        original, network = timm.create_model("vit_base_patch16_384"), vit(VIT_B_16_384, None)
    published = {k: v.shape for k, v in original.state_dict().items() if not k.startswith("head.")}
    assert {k: v.shape for k, v in network.state_dict().items()} == published


def test_official_mapper_is_extracted_from_the_cached_archive(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    mappers = write_mappers(tmp_path / "m.pth", 32)
    (tmp_path / "stylesim/gda").mkdir(parents=True)
    content = tar_of({"weights/mapper/clip_tuned.pth": (tmp_path / "m.pth").read_bytes(), "weights/other": b"x"})
    (tmp_path / "stylesim/gda/weights.tar.gz").write_bytes(content)
    start = clip_vit(architecture="ViT-test", weights="random")
    encoder = mapped("gda_clip", lambda weights: start, "official", "synth", "backbone.pth", str(tmp_path))
    assert torch.equal(encoder.network.get_parameter("mapper.weight"), mappers["synth"].weight)
    assert encoder.provenance.licence == "CC-BY-NC-SA-4.0"
    assert "no commercial use" in caplog.text


def test_wrong_files_and_options_are_refused(tmp_path: Path):
    start, path = clip_vit(architecture="ViT-test", weights="random"), tmp_path / "m.pth"
    write_mappers(path, 24)
    with pytest.raises(WeightsError, match=r"of another shape: real_mapper\.weight \[24, 24\] for \[32, 32\]"):
        mapped("gda_clip", lambda weights: start, str(path), "real", "backbone.pth", None)
    torch.save(start.network.state_dict(), path)
    with pytest.raises(WeightsError, match=r"missing: real_mapper\.weight, .*unexpected: "):
        mapped("gda_clip", lambda weights: start, str(path), "real", "backbone.pth", None)
    with pytest.raises(ConfigError, match="mapper must be real or synth, got 'fake'"):
        mapped("gda_clip", lambda weights: start, "random", "fake", "backbone.pth", None)
    with pytest.raises(WeightsError, match="weights must be one of official, random, or an existing file, got '/none'"):
        mapped("gda_clip", lambda weights: start, "/none", "real", "backbone.pth", None)


def test_checkpoint_gives_the_same_descriptors(small_vit: Any, tmp_path: Path):
    encoder = gda_dino(weights="random", mapper="synth")
    save_weights(encoder, tmp_path / "gda.safetensors")
    images = torch.randn(1, 3, 48, 48)
    assert torch.equal(load_checkpoint(tmp_path / "gda.safetensors")(images), encoder(images))


def test_gda_clip_is_vit_b_32_with_512_dimensions():
    with torch.device("meta"):
        encoder = gda_clip(weights="random")
    assert encoder.dim == 512
    assert encoder.network.get_parameter("network.conv1.weight").shape == (768, 3, 32, 32)
    assert encoder.preprocessing == clip_preprocessing(224)
