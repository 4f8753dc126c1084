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

from stylesim.core.errors import StylesimError
from stylesim.encoders.base import Preprocessing, Provenance, StyleEncoder
from stylesim.encoders.controls import color_histogram, ink_box, random_lite0
from stylesim.encoders.csd_factories import csd_clip


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


@settings(max_examples=40)
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


def test_any_size_and_mode_is_described_in_order(tmp_path: Path):
    """Each file against the RGB picture, upright and on white, that a viewer shows of it."""
    upright = Image.new("RGB", (60, 40), (200, 40, 20))
    upright.paste((10, 60, 220), (0, 0, 20, 40))
    sideways = Image.Exif()
    sideways[0x0112] = 6  # turn it by 90 degrees to the right to look at it
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "1.png", exif=sideways)
    upright.convert("CMYK").save(tmp_path / "2.tif")
    grey = np.tile(np.linspace(0, 65535, 50).astype(np.uint16), (70, 1))
    Image.fromarray(grey).save(tmp_path / "3.png")
    upright.convert("RGBA").save(tmp_path / "4.png")
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "5.png")
    upright.convert("L").save(tmp_path / "6.png")
    upright.quantize(4).save(tmp_path / "7.gif")
    upright.resize((1, 300)).save(tmp_path / "8.png")
    shown = [upright, upright, Image.fromarray((grey // 257).astype(np.uint8)).convert("RGB"), upright]
    shown += [Image.new("RGB", (9, 9), "white"), upright.convert("L").convert("RGB"), upright, upright.resize((1, 300))]
    described = Means().encode(tmp_path)
    torch.testing.assert_close(described, Means().encode(shown), atol=0.01, rtol=0)
    assert (described[0] - described[2]).abs().max() > 0.05


def test_a_folder_is_all_its_images_in_the_order_of_their_paths(tmp_path: Path):
    images = pictures(4)
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden" / "none").mkdir(parents=True)
    names = ["b/2.png", "a.png", "b/10.png", "c.PNG"]
    for name, image in zip(names, images, strict=True):
        image.save(tmp_path / name, "PNG")
    images[0].save(tmp_path / ".hidden" / "no.png")
    (tmp_path / "notes.txt").write_text("none")
    expected = Means().encode([images[1], images[2], images[0], images[3]])
    assert torch.equal(Means().encode(tmp_path), expected)
    assert torch.equal(Means().encode(str(tmp_path)), expected)
    with pytest.raises(StylesimError, match=r"no image in .*\.hidden/none: looked for \.jpg"):
        Means().encode(tmp_path / ".hidden" / "none")


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_unreadable_images_are_skipped_by_choice_and_named(batch_size: int, tmp_path: Path):
    good = pictures(3)
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8 torn")
    mixed = [tmp_path / "gone.png", good[0], tmp_path / "torn.jpg", good[1], b"no image", good[2]]
    with pytest.warns(UserWarning, match=r"3 images were left out:\n.*gone\.png.*\n.*torn\.jpg.*\nimage 4: "):
        described = Means().encode(mixed, batch_size=batch_size, on_error="skip")
    torch.testing.assert_close(described, Means().encode(good))
    with pytest.warns(UserWarning, match="1 images"):
        assert Means().encode([b"no image"], on_error="skip").shape == (0, 3)
    with pytest.raises(StylesimError, match="image"):
        Means().encode(mixed)
    with pytest.raises(StylesimError, match="on_error=ignore is none of raise, skip"):
        Means().encode(mixed, on_error="ignore")  # type: ignore[arg-type]


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
