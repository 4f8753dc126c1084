"""Checkpoints that version 0.1.0 wrote, before the modules were renamed, give the descriptors that they gave then.

The files have random weights and reduced sizes. DINO's network was reduced to the sizes of the fixture `reduced_dino`;
csd_lite0 is read at its first stage.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stylesim.encoders.baselines import dino_and_moco
from stylesim.encoders.load import load_encoder
from stylesim.encoders.weights.checkpoint import load_checkpoint

FOLDER = Path(__file__).parents[2] / "legacy" / "checkpoints"
EXPECTED = json.loads((FOLDER / "descriptors.json").read_text())


def images() -> list[np.ndarray]:
    y, x = np.mgrid[:40, :56]
    channels = [((x * 4 + y * k) % 256, (x * k) % 256, (y * 6 + k * 30) % 256) for k in (1, 3, 5)]
    return [np.stack(rgb, -1).astype(np.uint8) for rgb in channels]


@pytest.fixture
def reduced_dino(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VIT_B_16", "VIT_B_8"):
        monkeypatch.setattr(dino_and_moco, name, replace(getattr(dino_and_moco, name), width=24, layers=1, heads=2))


def test_every_file_has_its_descriptors():
    assert sorted(EXPECTED) == sorted(file.stem for file in FOLDER.glob("*.safetensors"))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_checkpoint_gives_the_descriptors_of_its_time(name: str, reduced_dino: None):
    path = FOLDER / f"{name}.safetensors"
    encoder = load_checkpoint(path)
    expected = torch.tensor(EXPECTED[name]["descriptors"])
    torch.testing.assert_close(encoder.encode(images()), expected, atol=1e-5, rtol=0)
    assert encoder.digest() == EXPECTED[name]["digest"]
    assert encoder.provenance.trained_head
    torch.testing.assert_close(load_encoder(path, device="cpu").encode(images()), expected, atol=1e-5, rtol=0)
