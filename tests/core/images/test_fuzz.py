"""Thousands of damaged files of every mode and format: each gives an image or a CorruptSampleError.

Where a format has checksums (PNG), a file whose pixels changed is refused. The other formats cannot tell every change:
a flipped bit of an uncompressed file, of a JPEG or of a WebP usually is another valid image. What they do tell, such as
a file that ends too early, is asserted.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import ADOBE_RGB, encoded, gradient, jpeg_segment, rgb_profile, with_segments
from PIL import Image

from stylesim.core.errors import CorruptSampleError
from stylesim.core.images import decode_rgb, jpeg_size, open_image

MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I;16",
    "I",
    "F",
)
WRITERS: dict[str, list[dict[str, object]]] = {
    "JPEG": [{"quality": 90}, {"progressive": True}, {"restart_marker_blocks": 1}],
    "PNG": [{}, {"compress_level": 0}],
    "WEBP": [{"quality": 80}, {"lossless": True}],
    "GIF": [{}],
    "BMP": [{}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}, {"compression": "packbits"}],
    "PPM": [{}],
    "AVIF": [{}],
    "JPEG2000": [{}],
}
ROUNDS = 100
"""Mutations of each file."""
CUTS = 25
"""Cuts of each file."""


def in_mode(mode: str) -> Image.Image:
    image = Image.fromarray(gradient(24, 34))
    if mode in ("I;16", "I", "F"):
        values = np.asarray(image.convert("L")).astype(np.uint16) * 257
        return Image.fromarray(values.astype({"I": np.int32, "F": np.float32}.get(mode, np.uint16)))
    if mode in ("La", "RGBa"):
        return image.convert(f"{mode[:-1]}A").convert(mode)
    if mode == "LAB":
        return Image.merge("LAB", image.split())
    return image.quantize(32).convert("PA") if mode == "PA" else image.convert(mode)


def corpus() -> dict[str, bytes]:
    """Return a file of every format in every mode that PIL can write, with metadata where there can be some."""
    files: dict[str, bytes] = {}
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, variants in WRITERS.items():
        for number, options in enumerate(variants):
            for mode in MODES:
                try:
                    data = encoded(in_mode(mode), kind, **options)
                except (OSError, ValueError, KeyError):  # PIL does not write this mode in this format
                    continue
                files[f"{kind} {number} {mode}"] = data
    profile = rgb_profile(ADOBE_RGB, 2.2)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        files[f"{kind} metadata"] = encoded(in_mode("RGB"), kind, exif=exif, icc_profile=profile)
    xmp = jpeg_segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<a tiff:Orientation="8"/>')
    files["JPEG xmp"] = with_segments(encoded(in_mode("RGB"), "JPEG"), xmp)
    for kind in ("GIF", "PNG", "TIFF", "WEBP"):
        files[f"{kind} frames"] = encoded(in_mode("RGB"), kind, save_all=True, append_images=[in_mode("L")])
    return files


CORPUS = corpus()
HEADERS = sorted({data[:16] for data in CORPUS.values()})


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage a file in one of the ways in which files get damaged."""
    data = data or b"\0"
    at, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 16, 64, 300))
    there = min(rng.randrange(len(data)), len(data) - 1)
    match rng.randrange(9):
        case 0:  # a flipped bit
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 1:  # noise
            return data[:at] + rng.randbytes(size) + data[at + size :]
        case 2:  # a hole
            return data[:at] + bytes(size) + data[at + size :]
        case 3:  # lost bytes
            return data[:at] + data[at + size :]
        case 4:  # more bytes
            return data[:at] + rng.randbytes(size) + data[at:]
        case 5:  # swapped pieces
            a, b = sorted((at, there))
            return data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]
        case 6:  # the header of another format
            header = rng.choice(HEADERS)
            return header + data[len(header) :]
        case 7:  # another number in the header, where sizes and offsets are
            at = rng.randrange(min(len(data), 120))
            number = rng.choice((0, 1, 2, 255, 65535, 0x7FFFFFFF, 0xFFFFFFFF, len(data)))
            return data[:at] + struct.pack(rng.choice("<>") + "I", number) + data[at + 4 :]
        case _:  # the end of another copy
            return data[:at] + data[there:]


def open_or_refuse(data: bytes, *, accept_damaged: bool = False) -> np.ndarray | None:
    """Open a file; None if it is refused in the one way that is allowed."""
    try:
        opened = decode_rgb(data, max_pixels=1_000_000, accept_damaged=accept_damaged)
    except CorruptSampleError:
        return None
    assert opened.dtype == np.uint8
    assert opened.ndim == 3
    assert opened.shape[2] == 3
    return opened


def mutations(name: str, rounds: int, seed: int = 0) -> Iterator[bytes]:
    rng = random.Random(f"{name} {seed}")
    for _ in range(rounds):
        mutated = mutate(CORPUS[name], rng)
        yield mutate(mutated, rng) if rng.random() < 0.2 else mutated


def test_the_corpus_is_read():
    assert {name.split()[0] for name in CORPUS} == set(WRITERS)
    assert {name.split()[-1] for name in CORPUS} >= set(MODES) - {"La", "PA"}  # which PIL writes into TIFF at most
    for name, data in CORPUS.items():
        opened = open_or_refuse(data)
        assert opened is not None, name
        assert opened.shape[:2] == ((34, 24) if name.endswith(("metadata", "xmp")) else (24, 34)), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.filterwarnings("ignore")
def test_every_damaged_file_gives_an_image_or_is_refused(kind: str):
    for name in (name for name in CORPUS if name.startswith(kind + " ")):
        original = open_or_refuse(CORPUS[name])
        assert original is not None
        for mutated in mutations(name, ROUNDS):
            opened = open_or_refuse(mutated)
            is_changed = opened is not None and not np.array_equal(opened, original)
            # Under the header of a format without checksums, the rest of a PNG can be its pixels.
            assert not (kind == "PNG" and is_changed and mutated.startswith(CORPUS[name][:8])), name
            jpeg_size(mutated)


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_ends_too_early_is_refused_or_loses_nothing(kind: str):
    for name in (name for name in CORPUS if name.startswith(kind + " ")):
        data, original = CORPUS[name], open_or_refuse(CORPUS[name])
        rng = random.Random(name)
        for length in sorted({rng.randrange(len(data)) for _ in range(CUTS)} | set(range(len(data) - 12, len(data)))):
            opened = open_or_refuse(data[:length])
            assert opened is None or (original is not None and np.array_equal(opened, original)), (name, length)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_that_are_accepted_give_an_image_or_are_refused(kind: str):
    for name in (name for name in CORPUS if name.startswith(kind + " ")):
        for mutated in mutations(name, ROUNDS // 4, seed=1):
            open_or_refuse(mutated, accept_damaged=True)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(HEADERS), st.binary(max_size=200))
def test_anything_behind_a_header_gives_an_image_or_is_refused(header: bytes, rest: bytes):
    open_or_refuse(header + rest)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_opens_from_memory(mode: str):
    assert open_image(in_mode(mode)).mode == "RGB"
