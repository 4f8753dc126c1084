"""python -m stylesim.export: a checkpoint for the code of others."""

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


def test_what_was_exported_describes_alike(tmp_path: Path, composed: Callable[..., DictConfig]):
    encoder = csd_clip(architecture="ViT-test", weights="random", image_size=32)
    save_weights(encoder, tmp_path / "ours.safetensors")
    overrides = [f"checkpoint={tmp_path / 'ours.safetensors'}", f"out={tmp_path / 'csd.pth'}"]
    assert export.main(composed(*overrides, config="export")) == {}
    theirs = csd_clip(architecture="ViT-test", weights=str(tmp_path / "csd.pth"), image_size=32)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(theirs(images), encoder(images))


def test_a_checkpoint_that_is_not_there_is_a_sentence(tmp_path: Path, composed: Callable[..., DictConfig]):
    with pytest.raises(StylesimError, match="There is no weight file at"):
        export.main(composed("checkpoint=none", f"out={tmp_path / 'csd.pth'}", config="export"))
