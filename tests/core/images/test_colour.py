"""Embedded colour profiles are converted to sRGB, or ignored where that is asked for."""

from __future__ import annotations

import logging
import zlib

import numpy as np
import pytest
from image_files import (
    ADOBE_GAMMA,
    ADOBE_RGB,
    DISPLAY_P3,
    SRGB,
    cmyk_profile,
    encoded,
    from_linear,
    gradient,
    grey_profile,
    jpeg_segment,
    pixels,
    rgb_profile,
    to_linear,
    with_chunks,
    with_segments,
)
from PIL import Image, ImageCms

from stylesim.core.images import decode_rgb, open_image
from stylesim.core.images.colour import _conversion
from stylesim.core.log_once import log_once

SRGB_CURVE = [round(65535 * value) for value in to_linear(np.arange(1024) * 255 / 1023).tolist()]
PROFILES = {
    "adobe": (rgb_profile(ADOBE_RGB, ADOBE_GAMMA), ADOBE_RGB),
    "p3": (rgb_profile(DISPLAY_P3, SRGB_CURVE), DISPLAY_P3),
}


@pytest.fixture(autouse=True)
def forget_warnings() -> None:
    log_once.cache_clear()


def muted() -> np.ndarray:
    """Colours that every profile of these tests can show."""
    return (64 + gradient() * 0.5).astype(np.uint8)


def stored_in(name: str, image: np.ndarray) -> np.ndarray:
    """Return the values that show an sRGB image under a profile, by the formulas of both colour spaces."""
    light = to_linear(image) @ np.array(SRGB) @ np.linalg.inv(np.array(PROFILES[name][1]))
    values = 255 * light.clip(0, 1) ** (1 / ADOBE_GAMMA) if name == "adobe" else from_linear(light)
    return values.round().astype(np.uint8)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 2),
        ("TIFF", {}, 2),
        ("WEBP", {"lossless": True}, 2),
        ("JPEG", {"quality": 100, "subsampling": 0}, 12),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 12),
    ],
)
def test_the_same_picture_in_another_colour_space_is_the_same_image(name, kind, options, tolerance):
    stored, profile = stored_in(name, muted()), PROFILES[name][0]
    assert np.abs(stored.astype(int) - muted()).max() > 8
    data = encoded(stored, kind, icc_profile=profile, **options)
    assert np.abs(pixels(open_image(data)) - muted()).max() <= tolerance
    assert np.abs(decode_rgb(data, colour="raw").astype(int) - stored).max() <= tolerance


def test_raw_values_of_lossless_files_are_exact():
    data = encoded(gradient(), icc_profile=PROFILES["adobe"][0])
    assert np.array_equal(decode_rgb(data, colour="raw"), gradient())
    assert np.array_equal(pixels(open_image(data, colour="raw")), gradient())


def test_a_pil_image_with_a_profile_is_converted_too(tmp_path):
    stored = stored_in("adobe", muted())
    path = tmp_path / "image.png"
    path.write_bytes(encoded(stored, icc_profile=PROFILES["adobe"][0]))
    assert np.abs(pixels(open_image(Image.open(path))) - muted()).max() <= 2
    assert np.array_equal(pixels(open_image(Image.open(path), colour="raw")), stored)


@pytest.mark.parametrize(
    "profile",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        rgb_profile(SRGB, SRGB_CURVE, "any name"),
    ],
    ids=["littlecms", "own"],
)
def test_an_srgb_profile_changes_nothing(profile: bytes):
    assert np.array_equal(decode_rgb(encoded(gradient(), icc_profile=profile)), gradient())
    conversion = _conversion(profile)
    assert not isinstance(conversion, str)
    assert conversion.transform is None
    jpeg = encoded(gradient(), "JPEG")
    assert np.array_equal(decode_rgb(encoded(gradient(), "JPEG", icc_profile=profile)), decode_rgb(jpeg))


def test_a_linear_profile_called_srgb_is_converted():
    light = to_linear(muted())
    data = encoded((255 * light).round().astype(np.uint8), icc_profile=rgb_profile(SRGB, 1.0, "sRGB linear"))
    assert np.abs(decode_rgb(data).astype(int) - muted()).max() <= 4  # 8 bit of linear light are coarse


def test_a_profile_is_parsed_once():
    _conversion.cache_clear()
    for kind in ("PNG", "JPEG", "TIFF", "PNG"):
        decode_rgb(encoded(muted(), kind, icc_profile=PROFILES["p3"][0]))
    assert _conversion.cache_info().misses == 1
    assert _conversion.cache_info().hits >= 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_grey_profile_is_applied(kind: str):
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (16, 1))
    options = {"quality": 100} if kind == "JPEG" else {}
    opened = decode_rgb(encoded(grey, kind, icc_profile=grey_profile(1.8), **options))
    expected = from_linear((grey / 255) ** (round(1.8 * 256) / 256))
    assert np.abs(opened.astype(int) - expected[..., None]).max() <= (4 if kind == "JPEG" else 2)
    assert (opened == opened[..., :1]).all()


def test_grey_with_the_profile_of_a_screen_is_converted_as_colour():
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (16, 1))
    expected = from_linear((grey / 255) ** ADOBE_GAMMA)
    for kind in ("PNG", "JPEG"):
        opened = decode_rgb(encoded(grey, kind, icc_profile=PROFILES["adobe"][0])).astype(int)
        assert np.abs(opened - expected[..., None]).max() <= 3


def test_sixteen_bit_grey_is_scaled_and_then_converted():
    values = np.tile(np.arange(0, 65536, 1024, dtype=np.uint16), (4, 1))
    opened = decode_rgb(encoded(values, icc_profile=grey_profile(1.8)))
    expected = from_linear(((values / 257).round() / 255) ** (round(1.8 * 256) / 256))
    assert np.abs(opened.astype(int) - expected[..., None]).max() <= 2


def test_transparent_and_palette_images_are_converted_before_they_are_put_on_white():
    stored = stored_in("adobe", muted())
    alpha = np.full(stored.shape[:2], 255, np.uint8)
    alpha[:, :20] = 0
    opened = decode_rgb(encoded(np.dstack([stored, alpha]), icc_profile=PROFILES["adobe"][0])).astype(int)
    assert (opened[:, :20] == 255).all()
    assert np.abs(opened[:, 20:] - muted()[:, 20:]).max() <= 2
    palette = Image.fromarray(stored).quantize(64)
    opened = decode_rgb(encoded(palette, icc_profile=PROFILES["adobe"][0])).astype(int)
    exact = decode_rgb(encoded(palette.convert("RGB"), icc_profile=PROFILES["adobe"][0])).astype(int)
    assert np.array_equal(opened, exact)


def inks() -> dict[tuple[int, int, int, int], tuple[float, float, float]]:
    """CIELAB colours of a printer whose cyan is a dull green, so that no formula without the profile finds them."""
    paper = {(0, 0, 0): (100, 0, 0), (1, 0, 0): (60, -30, 10), (0, 1, 0): (50, 50, 0), (0, 0, 1): (90, 0, 60)}
    paper |= {(1, 1, 0): (30, 10, -20), (1, 0, 1): (50, -40, 30), (0, 1, 1): (45, 45, 30), (1, 1, 1): (25, 0, 0)}
    return {(*key, k): (lab if k == 0 else (0, 0, 0)) for key, lab in paper.items() for k in (0, 1)}


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(kind: str):
    profile = cmyk_profile(inks())
    for ink, (lightness, a, b) in {(1, 0, 0, 0): (60, -30, 10), (0, 1, 0, 0): (50, 50, 0)}.items():
        image = Image.new("CMYK", (32, 32), tuple(255 * part for part in ink))
        opened = decode_rgb(encoded(image, kind, icc_profile=profile))[16, 16].astype(int)
        y = (lightness + 16) / 116  # CIELAB to XYZ of D50 to sRGB, by their definitions
        xyz = np.array([0.9642 * (y + a / 500) ** 3, y**3, 0.8249 * (y - b / 200) ** 3])
        expected = from_linear(xyz @ np.linalg.inv(np.array(SRGB)))
        assert np.abs(opened - expected).max() <= 4
        naive = np.asarray(image.convert("RGB"))[16, 16]
        assert np.abs(decode_rgb(encoded(image, kind, icc_profile=profile), colour="raw")[16, 16] - naive).max() <= 2


@pytest.mark.parametrize(
    "profile",
    [b"x" * 300, PROFILES["adobe"][0][:200], cmyk_profile(inks()), grey_profile(2.2)],
    ids=["junk", "cut", "of inks", "of greys"],
)
def test_a_profile_that_cannot_be_used_is_ignored_and_that_is_said_once(profile: bytes, caplog):
    with caplog.at_level(logging.WARNING):
        for kind in ("PNG", "TIFF", "PNG"):
            assert np.array_equal(decode_rgb(encoded(gradient(), kind, icc_profile=profile)), gradient())
    assert [record.message.startswith("An image has a colour profile") for record in caplog.records] == [True]


def test_a_jpeg_without_a_part_of_its_profile_is_read_with_its_raw_values(caplog):
    jpeg = encoded(gradient(), "JPEG")
    part = jpeg_segment(0xE2, b"ICC_PROFILE\0\1\2" + PROFILES["adobe"][0][:100])
    assert np.array_equal(decode_rgb(with_segments(jpeg, part)), decode_rgb(jpeg))
    assert len(caplog.records) == 1


def test_a_profile_in_several_parts_is_joined_in_order():
    profile = PROFILES["adobe"][0]
    first, second = profile[:150], profile[150:]
    jpeg = encoded(muted(), "JPEG", quality=95)
    segments = [jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 2]) + part) for n, part in ((2, second), (1, first))]
    expected = decode_rgb(encoded(muted(), "JPEG", quality=95, icc_profile=profile))
    assert np.array_equal(decode_rgb(with_segments(jpeg, *segments)), expected)


def test_large_profiles_and_texts_of_a_png_are_read_and_stay_bounded(caplog):
    profile = PROFILES["adobe"][0]
    padded = (len(profile) + 3_000_000).to_bytes(4, "big") + profile[4:] + bytes(3_000_000)
    stored = stored_in("adobe", muted())
    text = [(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(20_000_000))) for _ in range(3)]
    text.append((b"tEXt", b"Comment\0" + b"a" * 5_000_000))
    data = with_chunks(encoded(stored), (b"iCCP", b"large\0\0" + zlib.compress(padded)), *text)
    assert np.abs(decode_rgb(data).astype(int) - muted()).max() <= 2
    bomb = with_chunks(encoded(stored), (b"iCCP", b"bomb\0\0" + zlib.compress(bytes(40_000_000))))
    assert np.array_equal(decode_rgb(bomb), stored)
    assert "cannot be used" in caplog.records[-1].message
