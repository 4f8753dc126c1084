"""CAS and CFSD against independent formulas in numpy, and LPIPS against its definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylesim.encoders.backbones.lpips import Lpips
from stylesim.scoring.ranking.content_measures import TEMPERATURE, cas, cfsd
from stylesim.scoring.ranking.content_pairs import artfid_note
from stylesim.scoring.ranking.neighbour_comparison import name_keys

A, B = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).unbind()


def test_cas_is_the_distance_of_standardised_channels() -> None:
    def standardise(x: np.ndarray) -> np.ndarray:
        return (x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True)

    expected = [((standardise(a) - standardise(b)) ** 2).mean() for a, b in zip(A.numpy(), B.numpy(), strict=True)]
    assert cas(A, B).numpy() == pytest.approx(expected, rel=1e-3)
    assert cas(A, 3 * A + 2).numpy() == pytest.approx(0, abs=1e-4), "the statistics of channels are style"


def test_cfsd_is_the_divergence_of_patch_similarities() -> None:
    def rows(x: np.ndarray) -> np.ndarray:
        patches = x.reshape(3, -1).T
        patches = patches / np.linalg.norm(patches, axis=1, keepdims=True)
        exponent = np.exp(patches @ patches.T / TEMPERATURE)
        return exponent / exponent.sum(1, keepdims=True)

    pairs = [(rows(image), rows(content)) for image, content in zip(A.numpy(), B.numpy(), strict=True)]
    expected = [(q * np.log(q / p)).sum(1).mean() for p, q in pairs]
    assert cfsd(A, B).numpy() == pytest.approx(expected, rel=1e-4)
    assert cfsd(A, A).numpy() == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_lpips_reads_the_file_of_torchvision(tmp_path: Path) -> None:
    from torchvision.models.vgg import vgg16

    torch.manual_seed(0)
    network: Any = vgg16(weights=None)
    torch.save(network.state_dict(), tmp_path / "vgg16.pth")
    lpips: Any = Lpips(str(tmp_path / "vgg16.pth"), image_size=32)
    a, b = torch.randint(0, 256, (2, 1, 3, 32, 32), dtype=torch.uint8).unbind()
    assert lpips(a, a).item() == pytest.approx(0, abs=1e-6)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    expected = 0.0
    x = [((side / 127.5 - 1) - shift[:, None, None]) / scale[:, None, None] for side in (a, b)]
    for number, last in enumerate((3, 8, 15, 22, 29)):
        first = (0, 4, 9, 16, 23)[number]
        x = [network.features[first : last + 1](side) for side in x]
        unit = [side / side.square().sum(1, keepdim=True).sqrt().clamp_min(1e-10) for side in x]
        weight = lpips.network.lins[number].model[-1].weight
        expected += float(((unit[0] - unit[1]).square() * weight.view(1, -1, 1, 1)).sum(1).mean())
    assert lpips(a, b).item() == pytest.approx(expected, rel=1e-4)


def test_artfid_is_refused_below_its_sample_size() -> None:
    assert "smallest set has 30" in artfid_note([6000, 30], 9000)
    assert "Inception" in artfid_note([6000], 9000)


def test_images_are_paired_by_file_names() -> None:
    assert name_keys(["a/x/1.png", "a/y/2.webp"]) == ["1", "2"]
    assert name_keys(["a/s/x/1.png", "a/s/y/1.webp"]) == ["x/1", "y/1"]
    assert name_keys(["a/1.png", "a/1.webp"]) == ["1.png", "1.webp"]
