from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from stylesim import export
from stylesim.core.errors import StylesimError
from stylesim.encoders.csd_factories import csd_clip
from stylesim.encoders.weights.checkpoint import save_weights


def test_exported_checkpoint_gives_the_same_descriptors(tmp_path: Path, composed: Callable[..., DictConfig]):
    encoder = csd_clip(architecture="ViT-test", weights="random", image_size=32)
    save_weights(encoder, tmp_path / "best.safetensors")
    overrides = [f"checkpoint={tmp_path / 'best.safetensors'}", f"out={tmp_path / 'csd.pth'}"]
    assert export.main(composed(*overrides, config="export")) == {}
    exported = csd_clip(architecture="ViT-test", weights=str(tmp_path / "csd.pth"), image_size=32)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(exported(images), encoder(images))


def test_missing_checkpoint_is_refused(tmp_path: Path, composed: Callable[..., DictConfig]):
    with pytest.raises(StylesimError, match="checkpoint must be an existing file, got none"):
        export.main(composed("checkpoint=none", f"out={tmp_path / 'csd.pth'}", config="export"))
