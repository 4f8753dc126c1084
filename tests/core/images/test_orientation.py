"""Images are turned upright, whatever their format and wherever they state their orientation."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, gradient, join_png, jpeg_segment, pixels, png_chunks, with_chunks, with_segments
from PIL import Image

from stylesim.core.images import decode_rgb, jpeg_size, open_image
from stylesim.core.images.orientation import UPRIGHT

XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'
LARGE = jpeg_segment(0xE2, b"something large".ljust(65_000, b"."))


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def upright(orientation: int, image: np.ndarray) -> np.ndarray:
    turned = Image.fromarray(image)
    return np.asarray(turned.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else turned)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_an_image_is_turned_once(kind: str, options: dict, orientation: int):
    data = encoded(gradient(), kind, exif=exif(orientation), **options)
    expected = upright(orientation, gradient())
    assert np.array_equal(decode_rgb(data), expected)
    assert np.array_equal(pixels(open_image(Image.open(io.BytesIO(data)))), expected)
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    assert np.array_equal(pixels(open_image(loaded)), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("where", ["exif", "behind 64 kB", "behind 200 kB", "xmp", "xmp element", "exif before xmp"])
def test_a_jpeg_is_turned_wherever_it_states_its_orientation(where: str, orientation: int):
    plain = encoded(gradient(), "JPEG", quality=95)
    block = jpeg_segment(0xE1, exif(orientation))
    packet = XMP % orientation
    if where == "xmp element":
        packet = f"<tiff:Orientation>{orientation}</tiff:Orientation>"
    xmp = jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet.encode())
    other = jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + (XMP % 3).encode())
    segments = {
        "exif": [block],
        "behind 64 kB": [LARGE, LARGE, block],
        "behind 200 kB": [LARGE, LARGE, LARGE, LARGE, block],
        "xmp": [xmp],
        "xmp element": [xmp],
        "exif before xmp": [other, block],
    }[where]
    data = with_segments(plain, *segments)
    expected = upright(orientation, decode_rgb(plain))
    assert np.array_equal(decode_rgb(data), expected)
    assert jpeg_size(data) == expected.shape[:2]
    small = decode_rgb(data, short_side=20)
    assert small.shape[:2] == tuple(side // 2 for side in expected.shape[:2])


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_png_is_turned_by_exif_behind_the_pixels_by_xmp_and_by_imagemagicks_text(orientation: int):
    plain, expected = encoded(gradient()), upright(orientation, gradient())
    header, *rest, end = png_chunks(plain)
    block = exif(orientation)[6:]
    packet = (XMP % orientation).encode()
    text = b"\nexif\n%8d\n" % len(exif(orientation)) + exif(orientation).hex().encode()
    for data in (
        join_png([header, *rest, (b"eXIf", block), end]),
        with_chunks(plain, (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)),
        with_chunks(plain, (b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0\0" + zlib.compress(packet))),
        with_chunks(plain, (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))),
    ):
        assert np.array_equal(decode_rgb(data), expected)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_webp_and_a_tiff_are_turned_by_xmp_alone(orientation: int):
    packet, expected = (XMP % orientation).encode(), upright(orientation, gradient())
    assert np.array_equal(decode_rgb(encoded(gradient(), "WEBP", lossless=True, xmp=packet)), expected)
    assert np.array_equal(decode_rgb(encoded(gradient(), "TIFF", tiffinfo={700: packet})), expected)


def test_an_avif_is_turned_once():
    data = encoded(gradient(), "AVIF", exif=exif(6), quality=100)
    assert np.abs(decode_rgb(data).astype(int) - upright(6, gradient())).max() < 12


@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\xff", b"Exif\0\0" + b"\xff" * 40, b"junk"])
def test_broken_metadata_lose_the_rotation_and_not_the_image(block: bytes):
    plain = encoded(gradient(), "JPEG")
    assert np.array_equal(decode_rgb(with_segments(plain, jpeg_segment(0xE1, block))), decode_rgb(plain))
    png = with_chunks(encoded(gradient()), (b"eXIf", block))
    assert np.array_equal(decode_rgb(png), gradient())


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(value: int):
    assert np.array_equal(decode_rgb(encoded(gradient(), "PNG", exif=exif(value))), gradient())


def test_packing_a_turned_tiff_stores_it_upright(tmp_path: Path):
    from stylesim.data.open_samples import open_samples
    from stylesim.data.roots import name_roots
    from stylesim.data.shards.packing import pack

    for orientation in (1, 2, 6, 8):
        folder = tmp_path / "images" / "someone"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{orientation}.tiff").write_bytes(encoded(gradient(), "TIFF", exif=exif(orientation)))
    pack(tmp_path / "images", tmp_path / "shards", processes=1, show=False)
    for sample in open_samples(name_roots([str(tmp_path / "shards")])):
        orientation = int(sample.id.split("_")[-1])
        assert np.array_equal(decode_rgb(sample.encoded()), upright(orientation, gradient()))
