"""Controls measure what they claim to, on images with a known answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from stylesim.core.errors import ConfigError
from stylesim.encoders.controls import color_histogram, frozen_lite0, ink_box, palette, random_lite0, random_vit
from stylesim.encoders.style_encoder import StyleEncoder


def test_colour_histogram_equals_numpys():
    array = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    counts, _ = np.histogramdd(array.reshape(-1, 3), bins=(4, 4, 4), range=[(0, 256)] * 3)
    expected = np.sqrt(counts.ravel() / counts.sum())
    np.testing.assert_allclose(color_histogram(bins=4).encode([array])[0], expected, atol=1e-6)


def test_colour_histogram_depends_on_colours_and_not_on_positions():
    array = np.full((96, 96, 3), 255, np.uint8)
    array[10:40, 10:40] = (200, 30, 30)
    moved, repainted = np.roll(array, 37, axis=1), array.copy()
    repainted[10:40, 10:40] = (30, 30, 200)
    first, second, third = color_histogram().encode([array, moved, repainted])
    assert torch.equal(first, second)
    assert first @ third < 0.95


def test_palette_separates_greys_that_the_joint_histogram_does_not():
    light, lighter = (np.full((96, 96, 3), level, np.uint8) for level in (200, 215))
    first, second = color_histogram().encode([light, lighter])
    assert torch.equal(first, second)
    first, second = palette().encode([light, lighter])
    assert first @ second < 0.01


def test_ink_box_finds_the_box():
    array = np.full((100, 100, 3), 255, np.uint8)
    array[10:40, 20:70] = 0
    encoder = ink_box(image_size=100)
    # left, right, top, bottom, width, height, area, share, share inside
    expected = torch.tensor([0.2, 0.3, 0.1, 0.6, 0.5, 0.3, 0.15, 0.15, 1.0]) - 0.5
    torch.testing.assert_close(encoder.encode([array])[0], expected / expected.norm())
    inverted = encoder.encode([255 - array])[0]
    torch.testing.assert_close(inverted, expected / expected.norm())


def test_blank_image_has_no_ink():
    encoder = ink_box()
    white, black = encoder.encode([Image.new("RGB", (50, 50), c) for c in ("white", "black")])
    assert torch.equal(white, black)
    assert white.isfinite().all()


@pytest.mark.parametrize(("readout", "dim"), [("stages", 384), ("pooled", 1280), ("gram", 820)])
def test_frozen_lite0_has_no_trainable_parameters(readout, dim: int):
    encoder = frozen_lite0(readout=readout, image_size=64)
    assert encoder.dim == dim
    assert not any(p.requires_grad for p in encoder.parameters())
    assert encoder.provenance.trained_head
    assert encoder.provenance.licence == "Apache-2.0"
    descriptors = encoder.encode([Image.new("RGB", (64, 64), c) for c in ("white", "teal")])
    assert descriptors[0] @ descriptors[1] < 0.999


@pytest.mark.parametrize("build", [partial(random_lite0, image_size=32), partial(random_vit, architecture="ViT-test")])
def test_random_weights_depend_only_on_their_seed(build: Callable[..., StyleEncoder]):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second, third = (build(seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert first.digest() == second.digest() != third.digest()


def test_unknown_readout_is_refused():
    with pytest.raises(ConfigError, match="readout must be one of stages, pooled, gram, got 'grams'"):
        frozen_lite0(readout="grams")  # type: ignore[arg-type]
