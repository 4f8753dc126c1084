"""Files of every mode and format through the one function that opens images."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encoded, gradient, pixels
from PIL import Image

from stylesim.core.errors import CorruptSampleError
from stylesim.core.images import decode_rgb, open_image


def test_bytes_paths_and_pil_images_give_the_same_pixels(tmp_path: Path):
    data = encoded(Image.fromarray(gradient()), "JPEG", quality=90)
    path = tmp_path / "image.png"  # the extension is wrong on purpose: content tells the format
    path.write_bytes(data)
    with Image.open(path) as image:
        expected = pixels(image.convert("RGB"))
    for source in (data, path, str(path), Image.open(path)):
        assert np.array_equal(pixels(open_image(source)), expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG"])
def test_every_format_keeps_the_image(kind: str):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    opened = pixels(open_image(encoded(Image.fromarray(gradient()), kind, **options)))
    assert np.abs(opened - gradient()).max() <= {"GIF": 40, "JPEG": 12}.get(kind, 0)


def test_a_cmyk_jpeg_is_converted_as_pil_does():
    data = encoded(Image.fromarray(gradient()).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(pixels(open_image(data)) - gradient()).max() <= 16


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_rotation_is_undone(orientation: int, kind: str):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(gradient()), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(decode_rgb(data), expected)
    assert np.array_equal(pixels(open_image(Image.open(io.BytesIO(data)))), expected)


@settings(max_examples=30)
@given(st.integers(17, 300), st.integers(17, 300), st.integers(8, 300), st.sampled_from(["4:4:4", "4:2:0"]))
def test_both_jpeg_decoders_agree_at_every_scale(height: int, width: int, short_side: int, subsampling: str):
    data = encoded(Image.fromarray(gradient(height, width)), "JPEG", quality=85, subsampling=subsampling)
    fast = decode_rgb(data, short_side).astype(int)
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (short_side, short_side))
        slow = np.asarray(image).astype(int)
    assert fast.shape == slow.shape
    assert np.abs(fast - slow).max() <= 2
    assert min(fast.shape[:2]) >= min(short_side, height, width)


def test_a_large_jpeg_is_decoded_at_a_reduced_scale():
    data = encoded(Image.fromarray(gradient(640, 1000)), "JPEG")
    assert decode_rgb(data, short_side=96).shape == (160, 250, 3)
    assert open_image(data, short_side=96).size == decode_rgb(data, 96).shape[1::-1]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_a_truncated_file_is_refused_with_its_name(tmp_path: Path, kind: str):
    noisy = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noisy), kind)
    path = tmp_path / "cut"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptSampleError, match=r"cut: The .* damaged"):
        open_image(path)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]),
    st.binary(max_size=12),
    st.integers(0, 400),
)
def test_a_damaged_file_gives_an_image_or_a_corrupt_sample_error(kind: str, junk: bytes, at: int):
    data = bytearray(encoded(Image.fromarray(gradient(12, 9)), kind))
    data[at : at + len(junk)] = junk
    with contextlib.suppress(CorruptSampleError):  # any other exception fails
        assert decode_rgb(bytes(data)).dtype == np.uint8


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"not an image at all", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_files_that_are_not_images_are_refused(data: bytes):
    with pytest.raises(CorruptSampleError, match="cannot be decoded"):
        open_image(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_too_many_pixels_are_refused_before_decoding(kind: str):
    data = encoded(Image.new("L", (3000, 2000)), kind)
    with pytest.raises(CorruptSampleError, match="3000 x 2000 pixels, more than the 1,000,000 allowed"):
        open_image(data, max_pixels=1_000_000)


def test_a_header_that_claims_gigapixels_is_refused():
    header = b"IHDR" + (100_000).to_bytes(4, "big") * 2
    data = bytearray(encoded(Image.new("L", (8, 8))))
    header += data[24:29]  # depth, colour type, and the rest of the chunk
    data[12:33] = header + zlib.crc32(header).to_bytes(4, "big")
    with pytest.raises(CorruptSampleError, match=r"10000000000 pixels.* scale the image down"):
        open_image(bytes(data))


def test_missing_files_and_folders_are_distinguished_from_damaged_ones(tmp_path: Path):
    with pytest.raises(CorruptSampleError, match=r"nowhere\.jpg cannot be read: No such file"):
        open_image(tmp_path / "nowhere.jpg")
    with pytest.raises(CorruptSampleError, match="cannot be read: Is a directory"):
        open_image(tmp_path)


def test_arrays_and_tensors_give_the_same_image():
    import torch

    array = gradient()
    chw = torch.from_numpy(array).permute(2, 0, 1)
    for source in (
        array,
        array / 255,
        (array / 255).astype(np.float32),
        chw,
        chw.float() / 255,
        chw.double() / 255,
    ):
        assert np.array_equal(pixels(open_image(source)), array)
    assert np.array_equal(pixels(open_image(array[..., 0]))[..., 1], array[..., 0])
    assert np.array_equal(pixels(open_image(chw[:1]))[..., 1], array[..., 0])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4, 3), np.int64), "uint8, or float"),
        (np.full((4, 4, 3), 255.0), "divide it by 255"),
        (np.full((4, 4, 3), np.nan), "float image must have values"),
        (np.zeros((4, 4, 7), np.uint8), "must have the shape"),
        (np.zeros((0, 4, 3), np.uint8), "must have the shape"),
        (42, "An image must be a path"),
    ],
)
def test_arrays_that_are_not_images_are_refused(source: object, message: str):
    with pytest.raises(CorruptSampleError, match=message):
        open_image(source)  # type: ignore[arg-type]


def test_opening_images_needs_no_torch():
    code = "import stylesim.core.images, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
