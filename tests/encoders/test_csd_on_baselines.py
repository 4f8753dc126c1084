"""CSD on the backbones of baselines: initial weights, gradients and checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stylesim.core.errors import ConfigError, WeightsError
from stylesim.encoders.baselines import dino_and_moco
from stylesim.encoders.baselines.dino_and_moco import dino_vitb16
from stylesim.encoders.csd_on_baselines import BACKBONES, csd_on
from stylesim.encoders.weights.checkpoint import load_checkpoint, save_weights

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VIT_B_16", "VIT_B_8"):
        shape = replace(getattr(dino_and_moco, name), width=48, layers=2, heads=4)
        monkeypatch.setattr(dino_and_moco, name, shape)


def test_backbone_has_the_published_weights(tmp_path: Path):
    path = tmp_path / "dino.pth"
    torch.save(dino_vitb16(weights="random").network.state_dict(), path)
    frozen = dino_vitb16(weights=str(path), image_size=64)
    encoder = csd_on(backbone="dino_vitb16", weights=str(path), image_size=64, dim=32)
    assert torch.equal(encoder.features(IMAGES), frozen.network(IMAGES))
    assert encoder.preprocessing == frozen.preprocessing
    assert encoder.provenance.digest == frozen.provenance.digest
    assert not encoder.provenance.trained_head


@pytest.mark.parametrize("backbone", list(BACKBONES))
def test_every_parameter_gets_a_gradient(backbone):
    encoder = csd_on(backbone=backbone, weights="random", image_size=64, dim=32, content_head=True)
    encoder.train()
    style, content = encoder.heads(IMAGES)
    assert content is not None
    assert style.shape == content.shape == (2, 32)
    (style[0] @ style[1] + content[0] @ content[1]).backward()
    groups = encoder.parameter_groups()
    assert {name for name, _ in groups["head"]} == {"style_head", "content_head"}
    assert sum(map(len, groups.values())) == len(list(encoder.parameters()))
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    encoder.set_grad_checkpointing()
    torch.testing.assert_close(encoder(IMAGES), style)


def test_checkpoint_gives_the_same_descriptors_with_and_without_its_config(tmp_path: Path):
    encoder = csd_on(backbone="moco_vitb", weights="random", image_size=64, dim=32, content_head=True)
    path = tmp_path / "step.safetensors"
    save_weights(encoder, path, {"step": "3"})
    loaded = csd_on(backbone="moco_vitb", weights=str(path), image_size=64, dim=32)
    assert torch.equal(loaded(IMAGES), encoder(IMAGES))
    assert loaded.provenance.trained_head
    assert torch.equal(load_checkpoint(path)(IMAGES), encoder(IMAGES))
    with pytest.raises(WeightsError, match=r"style_head \[48, 32\] for \[48, 16\]"):
        csd_on(backbone="moco_vitb", weights=str(path), image_size=64, dim=16)


def test_unknown_backbone_and_keyword_are_refused():
    with pytest.raises(ConfigError, match=r"backbone must be one of dino_vitb16, dino_vitb8, .* got 'vgg_gram'"):
        csd_on(backbone="vgg_gram")  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="weights must be one of official, random, or an existing file, got 'clip'"):
        csd_on(backbone="sscd_rn50", weights="clip")
