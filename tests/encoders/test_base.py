"""Preprocessing to the pixel, and what every encoder does with raw images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from stylesim.encoders.base import Preprocessing, Provenance, StyleEncoder
from stylesim.encoders.controls import color_histogram, ink_box, random_lite0
from stylesim.encoders.factories import csd_clip
from stylesim.errors import StylesimError


class Means(StyleEncoder):
    """Mean of each channel: tiny, and different for every picture."""

    def __init__(self) -> None:
        super().__init__(3, Preprocessing(8), Provenance("means", "none"))
        self.dropout = torch.nn.Dropout(0.9)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.dropout(images.mean(dim=(2, 3)) + 2), dim=-1)


def pictures(count: int, size: int = 24) -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (count, size, size + 7, 3), dtype=np.uint8)
    return [Image.fromarray(array) for array in noise]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(5, 90),
    st.integers(5, 90),
    st.integers(4, 40),
    st.integers(0, 9),
    st.sampled_from(["bicubic", "bilinear"]),
)
def test_pixels_equal_torchvisions_resize_and_crop(height: int, width: int, size: int, margin: int, how: str):
    image = Image.fromarray(np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8))
    ours = Preprocessing(size, size + margin, how)(image)  # type: ignore[arg-type]
    mode = getattr(v2.InterpolationMode, how.upper())
    theirs = v2.Compose([v2.Resize(size + margin, mode), v2.CenterCrop(size), v2.PILToTensor()])(image)
    assert torch.equal(ours, theirs)


def test_normalise_takes_bytes_and_unit_floats_alike():
    preprocessing = Preprocessing(4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    images = torch.randint(0, 256, (2, 5, 3, 4, 4), dtype=torch.uint8)
    expected = v2.Normalize((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))(images.float() / 255)
    torch.testing.assert_close(preprocessing.normalise(images), expected)
    torch.testing.assert_close(preprocessing.normalise(images.float() / 255), expected)


def test_impossible_preprocessing_is_refused():
    with pytest.raises(StylesimError, match="cannot crop 64 px from a short side of 32 px"):
        Preprocessing(64, 32)
    with pytest.raises(StylesimError, match="no interpolation 'cubic'"):
        Preprocessing(64, interpolation="cubic")  # type: ignore[arg-type]
    with pytest.raises(StylesimError, match="too narrow a strip, 1 x 90000"):
        Preprocessing(224)(Image.new("RGB", (1, 90_000)))


def test_preprocessing_digest_covers_every_field():
    variants = [
        Preprocessing(32),
        Preprocessing(33),
        Preprocessing(32, 40),
        Preprocessing(32, interpolation="bilinear"),
        Preprocessing(32, mean=(0.5, 0.5, 0.4)),
        Preprocessing(32, std=(0.5, 0.5, 0.4)),
    ]
    assert len({p.digest() for p in variants}) == len(variants)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_encode_keeps_the_order_whatever_the_batch_size(batch_size: int):
    images, encoder = pictures(7), Means()
    one_by_one = torch.cat([encoder.encode([image]) for image in images])
    torch.testing.assert_close(encoder.encode(iter(images), batch_size=batch_size), one_by_one)
    assert encoder.encode([]).shape == (0, 3)


def test_every_kind_of_source_gives_the_same_descriptor(tmp_path: Path):
    image = pictures(1)[0]
    path = tmp_path / "a.png"
    image.save(path)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    sources = [path, str(path), path.read_bytes(), image, array, array / 255, tensor, tensor.float() / 255]
    described = Means().encode(sources)  # type: ignore[arg-type]
    assert (described == described[0]).all()


def test_a_large_jpeg_is_described_from_all_of_its_pixels(tmp_path: Path):
    image = pictures(1, 200)[0]
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    decoded = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    described = Means().encode([buffer.getvalue(), decoded])
    assert torch.equal(described[0], described[1])


def test_encode_evaluates_and_puts_the_mode_back():
    encoder = Means().train()
    encoder.dropout.eval()
    first, second = encoder.encode(pictures(2)), encoder.encode(pictures(2))
    assert torch.equal(first, second)
    assert encoder.training
    assert not encoder.dropout.training
    assert not first.requires_grad


def test_an_unreadable_image_is_named_and_the_mode_still_put_back(tmp_path: Path):
    encoder = Means().train()
    with pytest.raises(StylesimError, match=r"gone\.png"):
        encoder.encode([tmp_path / "gone.png"])
    assert encoder.training


@pytest.mark.parametrize("single", ["a.png", Path("a.png"), b"..", Image.new("RGB", (4, 4)), torch.zeros(3, 4, 4)])
def test_a_single_image_is_refused_with_advice(single: object):
    with pytest.raises(StylesimError, match="into a list"):
        Means().encode(single)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "build",
    [
        color_histogram,
        ink_box,
        random_lite0,
        lambda: csd_clip(architecture="ViT-test", weights="random", image_size=32),
    ],
)
def test_every_encoder_gives_finite_unit_vectors(build):
    encoder = build()
    flat = [Image.new("RGB", (40, 40), colour) for colour in ("white", "black", "red")]
    descriptors = encoder.encode(pictures(3) + flat)
    assert descriptors.shape == (6, encoder.dim)
    assert descriptors.dtype == torch.float32
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(6))


def test_the_digest_follows_weights_and_preprocessing():
    encoder = csd_clip(architecture="ViT-test", weights="random", image_size=32)
    before = encoder.digest()
    assert before == encoder.digest()
    encoder.preprocessing = Preprocessing(32)
    assert encoder.digest() != before
    assert color_histogram(bins=4).digest() != color_histogram(bins=8).digest()
    assert random_lite0(seed=0).digest() == random_lite0(seed=0).digest()
    assert random_lite0(seed=0).digest() != random_lite0(seed=1).digest()
    before = encoder.digest()
    with torch.no_grad():
        encoder.style_head[0, 0] += 1
    assert encoder.digest() != before
