"""Preprocessing equals torchvision's transforms, to the pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from stylesim.core.errors import ConfigError, CorruptSampleError
from stylesim.encoders.preprocessing import Preprocessing


@settings(max_examples=40)
@given(
    st.integers(5, 90),
    st.integers(5, 90),
    st.integers(4, 40),
    st.integers(0, 9),
    st.sampled_from(["bicubic", "bilinear"]),
)
def test_pixels_equal_torchvisions_resize_and_crop(height: int, width: int, size: int, margin: int, interpolation: str):
    image = Image.fromarray(np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8))
    pixels = Preprocessing(size, size + margin, interpolation)(image)  # type: ignore[arg-type]
    mode = getattr(v2.InterpolationMode, interpolation.upper())
    expected = v2.Compose([v2.Resize(size + margin, mode), v2.CenterCrop(size), v2.PILToTensor()])(image)
    assert torch.equal(pixels, expected)


def test_normalise_treats_uint8_and_unit_floats_alike():
    preprocessing = Preprocessing(4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    images = torch.randint(0, 256, (2, 5, 3, 4, 4), dtype=torch.uint8)
    expected = v2.Normalize((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))(images.float() / 255)
    torch.testing.assert_close(preprocessing.normalise(images), expected)
    torch.testing.assert_close(preprocessing.normalise(images.float() / 255), expected)
    torch.testing.assert_close(preprocessing.denormalise(expected), images.float() / 255)


def test_impossible_preprocessing_is_refused():
    with pytest.raises(ConfigError, match="Cannot crop 64 px from a short side of 32 px"):
        Preprocessing(64, 32)
    with pytest.raises(ConfigError, match=r"interpolation must be one of .*, got 'cubic'"):
        Preprocessing(64, interpolation="cubic")  # type: ignore[arg-type]
    with pytest.raises(CorruptSampleError, match="1 x 90000 pixels is too narrow"):
        Preprocessing(224)(Image.new("RGB", (1, 90_000)))


def test_digest_covers_every_field():
    variants = [
        Preprocessing(32),
        Preprocessing(33),
        Preprocessing(32, 40),
        Preprocessing(32, interpolation="bilinear"),
        Preprocessing(32, mean=(0.5, 0.5, 0.4)),
        Preprocessing(32, std=(0.5, 0.5, 0.4)),
    ]
    assert len({p.digest() for p in variants}) == len(variants)
