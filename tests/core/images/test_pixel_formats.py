"""Every mode of PIL and every depth of a file comes out as the 8 bit RGB that it shows."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, gradient, join_png, pixels
from PIL import Image

from stylesim.core.errors import CorruptSampleError
from stylesim.core.images import decode_rgb, open_image
from stylesim.core.log_once import log_once

RAMP = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.round().astype(np.uint8)[..., None], 3, axis=2)


def packed_png(depth: int, colour: int, rows: list[bytes], width: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    return join_png([(b"IHDR", header), *chunks, (b"IDAT", content), (b"IEND", b"")])


def raw_tiff(values: np.ndarray, photometric: int, bits: int, sample_format: int) -> bytes:
    """Write an uncompressed little-endian TIFF of one channel, which PIL cannot in all these variants."""
    height, width = values.shape
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height}
    entries |= {279: len(data), 339: sample_format}
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory + bytes(4)


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_sixteen_bit_tiff_is_black_and_white_the_right_way_round(white_is_zero: bool):
    expected = grey(255 - RAMP / 257 if white_is_zero else RAMP / 257)
    data = raw_tiff(RAMP, 0 if white_is_zero else 1, 16, 1)
    assert np.abs(decode_rgb(data).astype(int) - expected).max() <= (1 if white_is_zero else 0)  # .5 is rounded to even


@pytest.mark.parametrize("full", [1.0, 255.0, 65535.0])
@pytest.mark.parametrize("photometric", [0, 1])
def test_float_tiff_is_scaled_by_the_smallest_range_that_holds_it(full: float, photometric: int):
    values = (np.linspace(0, 1, 256).reshape(16, 16) * full).astype(np.float32)
    expected = np.linspace(0, 255, 256).reshape(16, 16)
    data = raw_tiff(values, photometric, 32, 3)
    assert np.abs(decode_rgb(data).astype(int) - grey(255 - expected if photometric == 0 else expected)).max() <= 1


def test_floats_slightly_outside_their_range_are_clipped():
    values = np.linspace(-0.02, 1.03, 256).astype(np.float32).reshape(16, 16)
    assert np.abs(decode_rgb(encoded(values, "TIFF")).astype(int) - grey((values * 255).clip(0, 255))).max() <= 1


@pytest.mark.parametrize("bad", [-1.0, 1e6, np.inf, np.nan])
def test_floats_that_are_no_image_are_refused(bad: float):
    values = np.linspace(0, 1, 256).astype(np.float32).reshape(16, 16)
    values[3, 4] = bad
    with pytest.raises(CorruptSampleError, match="values"):
        decode_rgb(encoded(values, "TIFF"))


@pytest.mark.parametrize("full", [255, 65535, 2**32 - 1])
def test_unsigned_32_bit_tiff_is_scaled_by_the_smallest_range_that_holds_it(full: int):
    values = (np.linspace(0, 1, 256).reshape(16, 16) * full).astype(np.uint32)
    assert np.abs(decode_rgb(raw_tiff(values, 1, 32, 1)).astype(int) - grey(255 * (values / full))).max() <= 1


@pytest.mark.parametrize(("bits", "full"), [(16, 2**15 - 1), (32, 65535), (32, 2**31 - 1)])
def test_signed_tiff_is_scaled_and_negative_values_are_refused(bits: int, full: int):
    values = (np.linspace(0, 1, 256).reshape(16, 16) * full).astype(f"int{bits}")
    assert np.abs(decode_rgb(raw_tiff(values, 1, bits, 2)).astype(int) - grey(255 * (values / full))).max() <= 1
    values[0, 0] = -full
    with pytest.raises(CorruptSampleError, match="values from -"):
        decode_rgb(raw_tiff(values, 1, bits, 2))


def test_twelve_bit_tiff_uses_the_whole_range():
    values = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in values.reshape(-1, 2).tolist())
    tiff = bytearray(raw_tiff(np.frombuffer(packed, np.uint8).reshape(16, 24), 1, 12, 1))
    width = tiff.index(struct.pack("<HHI", 256, 4, 1)) + 8
    tiff[width : width + 4] = struct.pack("<I", 16)
    assert np.abs(decode_rgb(bytes(tiff)).astype(int) - grey(values / 4095 * 255)).max() <= 1


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_is_white_at_every_depth(depth: int):
    levels, width = min(2**depth, 16), 16
    values = [i % levels * (2**depth - 1) // (levels - 1) for i in range(width)]
    text = "".join(f"{value:0{depth}b}" for value in values)
    row = int(text, 2).to_bytes(len(text) // 8, "big")
    transparent = values[1]
    opened = decode_rgb(packed_png(depth, 0, [row] * 3, width, (b"tRNS", struct.pack(">H", transparent))))
    expected = [255 if value == transparent else round(255 * value / (2**depth - 1)) for value in values]
    assert np.array_equal(opened, grey(np.array([expected] * 3, float)))


def test_the_transparent_colour_of_a_png_is_white_at_sixteen_bits():
    row = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x0100, 0x0200, 0x0300)
    opened = decode_rgb(packed_png(16, 2, [row], 2, (b"tRNS", row[:6])))
    assert opened.tolist() == [[[255, 255, 255], [1, 2, 3]]]


def deep(image: Image.Image, mode: str) -> Image.Image:
    values = np.asarray(image.convert("L")).astype(np.uint16) * 257
    if mode == "F":
        return Image.fromarray(values.astype(np.float32))
    if mode == "I":
        return Image.fromarray(values.astype(np.int32))
    return Image.frombytes(mode, image.size, values.astype(">u2" if mode == "I;16B" else "<u2").tobytes())


GREY_MODES = ("L", "LA", "La", "I;16", "I;16L", "I;16B", "I", "F")


@pytest.mark.parametrize(
    "mode", ["RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "P", "PA", "1", *GREY_MODES]
)
def test_every_mode_of_pil_opens_as_the_colours_it_shows(mode: str):
    image, expected = Image.fromarray(gradient()), gradient().astype(int)
    if mode.startswith("I") or mode == "F":
        image = deep(image, mode)
    elif mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
        assert image is not None
    elif mode in ("La", "RGBa"):
        image = image.convert(mode[:-1] + "A").convert(mode)
    elif mode == "PA":
        image = image.quantize(256).convert("PA")
    else:
        image = image.convert(mode)
    if mode in GREY_MODES:
        expected = np.asarray(Image.fromarray(gradient()).convert("L").convert("RGB")).astype(int)
    opened = pixels(open_image(image))
    if mode == "1":
        assert set(np.unique(opened)) == {0, 255}
    else:
        # 8 bit of CIELAB and HSV are coarse in the dark, and palettes are of 256 colours.
        mean, largest = {"P": (20, 60), "PA": (6, 40), "YCbCr": (2, 4), "LAB": (1, 40), "HSV": (1, 6)}.get(mode, (1, 1))
        assert np.abs(opened - expected).max() <= largest
        assert np.abs(opened - expected).mean() <= mean


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La", "PA", "P"])
def test_transparency_of_every_mode_is_put_on_white(mode: str):
    image = Image.new("RGBA", (4, 2), (200, 200, 200, 255))
    image.putpixel((0, 0), (200, 200, 200, 0))
    image.putpixel((1, 0), (200, 200, 200, 128))
    if mode == "P":
        image = Image.new("P", (4, 2), 1)
        image.putpalette([0, 0, 0, 200, 200, 200, 200, 200, 200])
        image.putpixel((0, 0), 0)
        image.putpixel((1, 0), 2)
        image.info["transparency"] = b"\0\xff\x80"
    elif mode == "PA":
        alpha = image.getchannel("A")
        image = image.convert("RGB").quantize(4).convert("PA")
        image.putalpha(alpha)
    else:
        image = image.convert({"La": "LA"}.get(mode, "RGBA")).convert(mode)
    opened = pixels(open_image(image))
    assert opened[0, 0].tolist() == [255] * 3
    assert np.abs(opened[0, 1] - (200 * 128 + 255 * 127) / 255).max() <= 2
    assert opened[1, 2].tolist() == [200] * 3


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_of_several_frames_the_first_is_used_and_that_is_said_once(kind: str, caplog):
    log_once.cache_clear()
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (50, 100, 200)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert (decode_rgb(data) == 50).all()
    assert [record.message for record in caplog.records] == [
        f"A {kind} has several pages or frames: the first is used, of all such images. This is said once."
    ]
    caplog.clear()
    decode_rgb(encoded(frames[0], kind, **options))
    assert not caplog.records


def test_transparency_of_every_mode_is_composited_on_white():
    rgba = np.dstack([gradient(), np.full((48, 64), 255, np.uint8)])
    rgba[:, :32, 3] = 0
    half = rgba.copy()
    half[..., 3] = 128
    image = Image.fromarray(rgba)
    palette = image.convert("RGB").quantize(16)
    cases = {
        "RGBA": encoded(image),
        "LA": encoded(image.convert("LA")),
        "PA as WEBP": encoded(image, "WEBP", lossless=True),
        "palette": encoded(palette, transparency=palette.getpixel((0, 0))),
        "tRNS": encoded(Image.new("RGB", (4, 4), (10, 20, 30)), transparency=(10, 20, 30)),
        "grey tRNS": encoded(Image.new("L", (4, 4), 7), transparency=7),
    }
    for name, data in cases.items():
        assert (pixels(open_image(data))[0, 0] == 255).all(), name
    assert np.array_equal(pixels(open_image(cases["RGBA"]))[:, 32:], gradient()[:, 32:])
    blended = pixels(open_image(encoded(Image.fromarray(half))))
    assert np.abs(blended - (gradient() * (128 / 255) + 255 * (127 / 255))).max() <= 1


def test_sixteen_bit_greyscale_is_scaled_not_clipped(tmp_path: Path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    path = tmp_path / "deep.png"
    Image.fromarray(ramp).save(path)
    assert np.array_equal(pixels(open_image(path))[..., 0], (ramp / 257).round())
    Image.fromarray(ramp).save(tmp_path / "deep.tiff")
    assert np.array_equal(pixels(open_image(tmp_path / "deep.tiff"))[..., 2], (ramp / 257).round())


@pytest.mark.parametrize("mode", ["1", "L", "P", "I", "F"])
def test_grey_and_palette_modes_open_as_rgb(mode: str):
    image = Image.fromarray(gradient()).convert("L").convert(mode)
    if mode == "I":  # 32 bit files hold the values of 16 bit ones
        image = image.point(lambda value: value * 257)
    grey = pixels(open_image(encoded(image, "TIFF" if mode in "IF" else "PNG")))
    assert grey.shape == (48, 64, 3)
    assert np.array_equal(grey[..., 0], grey[..., 2])
    if mode != "1":
        assert np.abs(grey[..., 0] - np.asarray(Image.fromarray(gradient()).convert("L"))).max() <= 1
