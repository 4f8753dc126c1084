"""The palette: one soft histogram per colour channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylesim.core.errors import ConfigError
from stylesim.encoders.backbones.lite0 import lite0_preprocessing
from stylesim.encoders.backbones.palette import Palette
from stylesim.encoders.csd_factories import csd_lite0


def test_palette_equals_numpys_histogram_for_values_on_the_levels():
    preprocessing = lite0_preprocessing(20)
    levels = np.random.default_rng(0).integers(0, 6, (3, 3, 20, 20))
    images = preprocessing.normalise(torch.from_numpy(levels / 5).float())
    shares = np.sqrt([[np.bincount(channel.ravel(), minlength=6) / 400 for channel in image] for image in levels])
    torch.testing.assert_close(
        Palette(6, preprocessing)(images), torch.from_numpy(shares).float().flatten(1), atol=2e-3, rtol=0
    )


def test_value_between_two_levels_counts_for_both():
    preprocessing = lite0_preprocessing(4)
    grey = preprocessing.normalise(torch.full((1, 3, 4, 4), 0.3))
    squares = Palette(5, preprocessing)(grey).square().unflatten(1, (3, 5))
    torch.testing.assert_close(squares, torch.tensor([0, 0.8, 0.2, 0, 0]).expand(1, 3, 5), atol=1e-5, rtol=0)


@given(st.integers(0, 2**32 - 1), st.integers(2, 64))
def test_palette_has_unit_length_per_channel_and_ignores_positions(seed: int, levels: int):
    preprocessing = lite0_preprocessing(8)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    palettes = Palette(levels, preprocessing)(images)
    torch.testing.assert_close(palettes.unflatten(1, (3, levels)).norm(dim=2), torch.ones(2, 3))
    shuffled = images.flatten(2)[..., torch.randperm(64)].unflatten(2, (8, 8))
    torch.testing.assert_close(Palette(levels, preprocessing)(shuffled), palettes)


def test_palette_needs_two_levels():
    with pytest.raises(ConfigError, match="at least 2 levels per channel, got 1"):
        csd_lite0(weights="random", palette=1, image_size=32)
