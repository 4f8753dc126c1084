"""The preprocessing that the ImageNet baselines share, and the values of `preset` and `weights`."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from stylesim.core.errors import ConfigError, WeightsError
from stylesim.encoders.baselines.frozen_baseline import by_preset, imagenet_preprocessing
from stylesim.encoders.baselines.sscd import sscd_rn50


@settings(max_examples=12)
@given(st.integers(90, 400), st.integers(90, 400), st.sampled_from(["bicubic", "bilinear"]))
def test_pixels_equal_torchvisions_transforms(height: int, width: int, interpolation: Literal["bicubic", "bilinear"]):
    noise = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image, prepare = Image.fromarray(noise), imagenet_preprocessing(224, interpolation)
    expected = v2.Compose(
        [
            v2.Resize(256, v2.InterpolationMode[interpolation.upper()]),
            v2.CenterCrop(224),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    torch.testing.assert_close(prepare.normalise(prepare(image)), expected(image), atol=1e-6, rtol=0)


def test_margin_is_proportional_to_the_size():
    assert imagenet_preprocessing(448, "bicubic").resize == 512
    assert imagenet_preprocessing(32, "bicubic").resize == 36


def test_unknown_preset_and_keyword_are_refused():
    assert by_preset("reference", authors=1, reference=2) == 2
    with pytest.raises(ConfigError, match="preset must be one of authors, reference, got 'paper'"):
        by_preset("paper", authors=1, reference=2)
    with pytest.raises(
        WeightsError, match="weights must be one of official, random, or an existing file, got 'imagenet'"
    ):
        sscd_rn50(weights="imagenet")
