"""CLIP files of either activation: each gives the descriptors that open_clip or transformers' convention gives."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from clip_files import transformers_state
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from torch import nn

from stylesim.core.errors import ConfigError, WeightsError
from stylesim.encoders.baselines.clip_baseline import clip_vit
from stylesim.encoders.baselines.gda import gda_clip
from stylesim.encoders.csd_factories import csd_clip
from stylesim.encoders.style_encoder import StyleEncoder
from stylesim.encoders.weights import clip_activation
from stylesim.encoders.weights.checkpoint import export_csd, load_checkpoint, save_weights
from stylesim.encoders.weights.published import CLIP as CLIP_SOURCES
from stylesim.encoders.weights.published import CSD_OFFICIAL
from stylesim.encoders.weights.weight_formats import WeightFile, read_weights
from stylesim.encoders.weights.weight_keywords import FoundWeights

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _warn_again():
    clip_activation._warn.cache_clear()


def clip_model(activation: str) -> Any:
    """Return open_clip's CLIP in the shape of ViT-test."""
    vision = CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=8, image_size=32)
    text = CLIPTextCfg(context_length=8, vocab_size=20, width=16, heads=2, layers=1)
    torch.manual_seed(1)
    model = CLIP(32, vision, text, quick_gelu=activation == "quickgelu")
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def save(model: Any, folder: Path, beside: str) -> Path:
    """Save CLIP with the configuration that is published beside it, which states the activation."""
    quick = not isinstance(model.visual.transformer.resblocks[0].mlp.gelu, nn.GELU)
    path = folder / "model.safetensors"
    if beside == "transformers":
        tower = model.visual.state_dict()
        save_file(transformers_state(tower, tower.pop("proj")), path)
        config = {"model_type": "clip", "vision_config": {"hidden_act": "quick_gelu" if quick else "gelu"}}
        (folder / "config.json").write_text(json.dumps(config))
    else:
        save_file(model.state_dict(), path)
        config = {"model_cfg": {"embed_dim": 32, **({"quick_gelu": True} if quick else {})}}
        if beside == "open_clip":
            (folder / "open_clip_config.json").write_text(json.dumps(config))
    return path


@torch.no_grad()
def expected(model: Any) -> torch.Tensor:
    return model.encode_image(IMAGES, normalize=True)


@pytest.mark.parametrize("beside", ["transformers", "open_clip"])
@pytest.mark.parametrize("activation", ["quickgelu", "gelu"])
def test_activation_is_taken_from_the_configuration_beside_the_file(
    activation: Any, beside: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    model = clip_model(activation)
    path = save(model, tmp_path, beside)
    for encoder in (
        clip_vit(architecture="ViT-test", weights=str(path)),
        csd_clip(architecture="ViT-test", weights=str(path), image_size=32),
    ):
        torch.testing.assert_close(encoder(IMAGES), expected(model), atol=1e-5, rtol=1e-5)
        assert encoder.config is not None
        assert encoder.config["activation"] == activation
        assert ("GELU" in encoder.provenance.name) == (activation == "gelu")
    assert not caplog.records
    other = clip_model("gelu" if activation == "quickgelu" else "quickgelu")
    other.load_state_dict(model.state_dict())
    assert (expected(other) - expected(model)).abs().max() > 1e-3  # so the test can tell them apart


@pytest.mark.parametrize("activation", ["quickgelu", "gelu"])
def test_file_of_unknown_origin_is_warned_of_once_and_silenced_by_the_setting(
    activation: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    model = clip_model(activation)
    path = str(save(model, tmp_path, "nothing"))
    for _ in range(2):
        assumed = clip_vit(architecture="ViT-test", weights=path)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "Set model.activation to quickgelu or gelu" in record.message
    assert path in record.message
    assert assumed.config is not None
    assert assumed.config["activation"] == "quickgelu"
    caplog.clear()
    encoder = clip_vit(architecture="ViT-test", weights=path, activation=activation)
    torch.testing.assert_close(encoder(IMAGES), expected(model), atol=1e-5, rtol=1e-5)
    assert not caplog.records


def test_choice_against_what_the_weights_state_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = str(save(clip_model("gelu"), tmp_path, "open_clip"))
    encoder = clip_vit(architecture="ViT-test", weights=path, activation="quickgelu")
    assert encoder.config is not None
    assert encoder.config["activation"] == "quickgelu"
    assert "model.activation=quickgelu is used, although the weights" in caplog.text
    assert "were trained with gelu" in caplog.text


def test_unknown_activation_is_refused():
    for build in (csd_clip, clip_vit):
        with pytest.raises(ConfigError, match="activation must be one of quickgelu, gelu or null, got 'relu'"):
            build(architecture="ViT-test", weights="random", image_size=32, activation="relu")  # type: ignore[arg-type]


@pytest.mark.parametrize("build", [csd_clip, clip_vit])
@pytest.mark.parametrize("activation", ["quickgelu", "gelu"])
def test_checkpoint_keeps_the_activation(build: Any, activation: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    encoder: StyleEncoder = build(architecture="ViT-test", weights="random", image_size=32, activation=activation)
    path = tmp_path / "a.safetensors"
    save_weights(encoder, path)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded(IMAGES), encoder.eval()(IMAGES))
    assert loaded.digest() == encoder.digest()
    if build is csd_clip:  # as the start of another training
        started = csd_clip(architecture="ViT-test", weights=str(path), image_size=32)
        assert torch.equal(started(IMAGES), encoder(IMAGES))
    assert not caplog.records


def test_encoders_of_different_activations_have_different_digests(tmp_path: Path):
    path = save(clip_model("gelu"), tmp_path, "nothing")
    digests = {
        clip_vit(architecture="ViT-test", weights=str(path), activation=activation).digest()
        for activation in ("quickgelu", "gelu")
    }
    assert len(digests) == 2


@pytest.mark.parametrize("activation", ["quickgelu", "gelu", None])
def test_training_checkpoint_states_the_activation(activation: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    encoder = csd_clip(architecture="ViT-test", weights="random", image_size=32, activation=activation)
    state = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    content = {"pytorch-lightning_version": "2.6.6", "state_dict": state, "encoder_config": encoder.config}
    if activation is None:  # of an earlier version
        del content["encoder_config"]
    torch.save(content, tmp_path / "last.ckpt")
    loaded = csd_clip(architecture="ViT-test", weights=str(tmp_path / "last.ckpt"), image_size=32)
    assert torch.equal(loaded(IMAGES), encoder(IMAGES))
    assert not caplog.records


def test_published_sources_state_their_activation():
    assert {source.activation for source in [*CLIP_SOURCES.values(), *CSD_OFFICIAL.values()]} == {"quickgelu"}


@pytest.mark.parametrize(
    ("where", "architecture", "activation"),
    [
        ("models--laion--CLIP-ViT-B-16-laion2B-s34B-b88K", "ViT-B-16", "gelu"),
        ("models--apple--DFN2B-CLIP-ViT-L-14", "ViT-L-14", "quickgelu"),
        ("models--timm--vit_base_patch16_clip_224.openai", "ViT-B-16", "quickgelu"),
        ("models--somebody--CLIP", "ViT-B-16", None),
    ],
)
def test_activation_of_files_in_the_hub_cache(where: str, architecture: str, activation: str | None, tmp_path: Path):
    file = WeightFile(tmp_path / where / "snapshots" / "abc" / "model.safetensors", {}, "clip")
    found = FoundWeights(file.path, "0" * 64)
    assert clip_activation.clip_activation(None, found, file, architecture) == (activation or "quickgelu")
    assert bool(clip_activation._warn.cache_info().misses) == (activation is None)


@pytest.mark.parametrize(
    ("digest", "architecture", "activation"),
    [
        ("55e67d44", "ViT-B-16", "gelu"),  # vit_b_16-laion400m_e32-55e67d44.pt
        ("46683a32", "ViT-B-32", "quickgelu"),  # vit_b_32-quickgelu-laion400m_e32-46683a32.pt
        ("5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f", "ViT-B-16", "quickgelu"),  # OpenAI's
    ],
)
def test_activation_of_files_that_open_clip_lists(digest: str, architecture: str, activation: str, tmp_path: Path):
    file = WeightFile(tmp_path / "renamed.pt", {}, "clip")
    found = FoundWeights(file.path, digest.ljust(64, "0"))
    assert clip_activation.clip_activation(None, found, file, architecture) == activation
    assert not clip_activation._warn.cache_info().misses


@pytest.mark.parametrize("activation", ["quickgelu", "gelu"])
def test_code_of_a_torchscript_archive_states_the_activation(activation: str, tmp_path: Path):
    path = tmp_path / "clip.pt"
    traced: Any = torch.jit.trace(clip_model(activation).visual.transformer.resblocks[0].mlp, torch.zeros(1, 64))
    traced.save(str(path))
    assert read_weights(path).activation == activation


def test_backbone_of_gda_is_openais_clip(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    encoder = gda_clip(weights="random")
    assert "GELU" not in encoder.provenance.name
    assert not caplog.records


def test_gelu_is_not_exported_for_the_published_code(tmp_path: Path):
    encoder = csd_clip(architecture="ViT-test", weights="random", image_size=32, activation="gelu")
    with pytest.raises(WeightsError, match="The published code runs CLIP with QuickGELU, but CSD ViT-test, GELU was"):
        export_csd(encoder, tmp_path / "a.bin")
    assert asdict(encoder.provenance)["name"] == "CSD ViT-test, GELU"
