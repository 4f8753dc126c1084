"""What every encoder does with raw images, and its digest."""

from __future__ import annotations

import io
import re
from io import BytesIO
from pathlib import Path

import image_files
import numpy as np
import pytest
import torch
from PIL import Image

from stylesim.core.errors import ConfigError, DataError, StylesimError
from stylesim.core.images import decode_rgb
from stylesim.encoders.controls import color_histogram, ink_box, random_lite0
from stylesim.encoders.csd_factories import csd_clip
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance, StyleEncoder


class Means(StyleEncoder):
    """Mean of each channel: tiny, and different for each image."""

    def __init__(self) -> None:
        super().__init__(3, Preprocessing(8), Provenance("means", "none"))
        self.dropout = torch.nn.Dropout(0.9)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.dropout(images.mean(dim=(2, 3)) + 2), dim=-1)


def noise_images(count: int, size: int = 24) -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (count, size, size + 7, 3), dtype=np.uint8)
    return [Image.fromarray(array) for array in noise]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_encode_keeps_the_order_for_any_batch_size(batch_size: int):
    images, encoder = noise_images(7), Means()
    one_by_one = torch.cat([encoder.encode([image]) for image in images])
    torch.testing.assert_close(encoder.encode(iter(images), batch_size=batch_size), one_by_one)
    assert encoder.encode([]).shape == (0, 3)


def test_all_kinds_of_images_give_the_same_descriptor(tmp_path: Path):
    image = noise_images(1)[0]
    path = tmp_path / "a.png"
    image.save(path)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    sources = [path, str(path), path.read_bytes(), image, array, array / 255, tensor, tensor.float() / 255]
    descriptors = Means().encode(sources)
    assert (descriptors == descriptors[0]).all()


def test_large_jpeg_is_decoded_at_full_resolution():
    image = noise_images(1, 200)[0]
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    decoded = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    descriptors = Means().encode([buffer.getvalue(), decoded])
    assert torch.equal(descriptors[0], descriptors[1])


def test_encode_runs_in_evaluation_mode_and_restores_the_mode():
    encoder = Means().train()
    encoder.dropout.eval()
    first, second = encoder.encode(noise_images(2)), encoder.encode(noise_images(2))
    assert torch.equal(first, second)
    assert encoder.training
    assert not encoder.dropout.training
    assert not first.requires_grad


def test_unreadable_image_is_named_and_the_mode_is_restored(tmp_path: Path):
    encoder = Means().train()
    with pytest.raises(StylesimError, match=r"gone\.png"):
        encoder.encode([tmp_path / "gone.png"])
    assert encoder.training


def test_images_of_any_size_and_mode_are_embedded_in_order(tmp_path: Path):
    """Each file equals the upright RGB image on white that a viewer shows."""
    upright = Image.new("RGB", (60, 40), (200, 40, 20))
    upright.paste((10, 60, 220), (0, 0, 20, 40))
    sideways = Image.Exif()
    sideways[0x0112] = 6  # to be rotated by 90 degrees clockwise for display
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
    descriptors = Means().encode(tmp_path)
    torch.testing.assert_close(descriptors, Means().encode(shown), atol=0.01, rtol=0)
    assert (descriptors[0] - descriptors[2]).abs().max() > 0.05


def test_folder_means_all_its_images_sorted_by_path(tmp_path: Path):
    images = noise_images(4)
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
    with pytest.raises(DataError, match=r"no image in .*\.hidden/none: looked for \.jpg"):
        Means().encode(tmp_path / ".hidden" / "none")


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_unreadable_images_are_skipped_on_request_and_named(
    batch_size: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    good = noise_images(3)
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8 torn")
    mixed = [tmp_path / "gone.png", good[0], tmp_path / "torn.jpg", good[1], b"no image", good[2]]
    descriptors = Means().encode(mixed, batch_size=batch_size, on_error="skip")
    assert re.search(r"Skipped 3 images .*:\n.*gone\.png.*\n.*torn\.jpg.*\nimage 4: ", caplog.text)
    torch.testing.assert_close(descriptors, Means().encode(good))
    assert Means().encode([b"no image"], on_error="skip").shape == (0, 3)
    with pytest.raises(StylesimError, match="image"):
        Means().encode(mixed)
    with pytest.raises(ConfigError, match="on_error must be raise or skip, got 'ignore'"):
        Means().encode(mixed, on_error="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "single", [__file__, Path(__file__), b"..", BytesIO(), Image.new("RGB", (4, 4)), torch.zeros(3, 4, 4), np.eye(4)]
)
def test_single_image_is_refused_with_advice(single: object):
    with pytest.raises(ConfigError, match="into a list"):
        Means().encode(single)  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["/nope", Path("/nope"), "a.png", "~/no/such/folder"])
def test_folder_that_does_not_exist_is_named(missing: str | Path):
    with pytest.raises(ConfigError, match=f"There is no file or folder {missing}"):
        Means().encode(missing)


def test_things_that_are_no_images_are_refused():
    with pytest.raises(ConfigError, match="takes a folder or several images, got NoneType"):
        Means().encode(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        Means().encode(noise_images(2), batch_size=0)


def test_home_folder_and_open_files_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "works").mkdir()
    image = noise_images(1)[0]
    image.save(tmp_path / "works" / "a.png")
    expected = Means().encode([image])
    assert torch.equal(Means().encode("~/works"), expected)
    with (tmp_path / "works" / "a.png").open("rb") as file:
        assert torch.equal(
            Means().encode([file, BytesIO((tmp_path / "works" / "a.png").read_bytes())]), expected.repeat(2, 1)
        )


@pytest.mark.parametrize(
    "build",
    [
        color_histogram,
        ink_box,
        random_lite0,
        lambda: csd_clip(architecture="ViT-test", weights="random", image_size=32),
    ],
)
def test_descriptors_are_finite_unit_vectors(build):
    encoder = build()
    flat = [Image.new("RGB", (40, 40), colour) for colour in ("white", "black", "red")]
    descriptors = encoder.encode(noise_images(3) + flat)
    assert descriptors.shape == (6, encoder.dim)
    assert descriptors.dtype == torch.float32
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(6))


def test_digest_depends_on_weights_and_preprocessing():
    encoder = csd_clip(architecture="ViT-test", weights="random", image_size=32)
    before = encoder.digest()
    assert before == encoder.digest()
    encoder.preprocessing = Preprocessing(32)
    assert encoder.digest() != before
    assert color_histogram(bins=4).digest() != color_histogram(bins=8).digest()
    first, again, other = (random_lite0(seed=seed, image_size=32).digest() for seed in (0, 0, 1))
    assert first == again != other
    before = encoder.digest()
    with torch.no_grad():
        encoder.style_head[0, 0] += 1
    assert encoder.digest() != before


def test_open_files_are_embedded_and_a_single_one_is_refused_with_advice(tmp_path: Path):
    encoder, images = color_histogram(image_size=32), noise_images(3)
    data = [image_files.encoded(image) for image in images]
    buffers = [io.BytesIO(one) for one in data]
    buffers[1].seek(10)
    assert torch.equal(encoder.encode(buffers), encoder.encode(images))
    path = tmp_path / "image.png"
    path.write_bytes(data[0])
    with path.open("rb") as file:
        assert torch.equal(encoder.encode([file])[0], encoder.encode(images)[0])
        with pytest.raises(ConfigError, match="into a list"):
            encoder.encode(file)
    with pytest.raises(ConfigError, match="into a list"):
        encoder.encode(io.BytesIO(data[0]))


def test_the_same_picture_in_another_colour_space_has_the_same_descriptor():
    profile = image_files.rgb_profile(image_files.ADOBE_RGB, image_files.ADOBE_GAMMA)
    data = image_files.encoded(image_files.gradient(), icc_profile=profile)
    converted = Image.fromarray(decode_rgb(data))
    encoder = color_histogram(image_size=32)
    assert torch.equal(encoder.encode([data]), encoder.encode([converted]))
    encoder.use_colour("raw")
    assert torch.equal(encoder.encode([data]), encoder.encode([image_files.gradient()]))
    assert not torch.equal(encoder.encode([data]), encoder.encode([converted]))
    encoder.use_colour(None)
    assert encoder.preprocessing.colour == "raw"


def test_damaged_images_are_embedded_if_that_is_asked_for():
    encoder, data = color_histogram(image_size=32), image_files.encoded(image_files.gradient(300, 400), "JPEG")
    with pytest.raises(StylesimError, match="damaged"):
        encoder.encode([data[:-500]])
    assert encoder.encode([data[:-500]], accept_damaged=True).shape == (1, encoder.dim)
