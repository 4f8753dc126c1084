"""Damaged files are refused unless that is asked for; files that are merely irregular are read."""

from __future__ import annotations

import re
import struct
import zlib

import numpy as np
import pytest
from image_files import encoded, join_png, jpeg_segment, png_chunks, with_chunks, with_segments
from PIL import Image

from stylesim.core.errors import CorruptSampleError
from stylesim.core.images import decode_rgb, open_image
from stylesim.core.images.jpeg import MAX_SCANS


def textured(height: int = 96, width: int = 128) -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8))
    return np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))


KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 3},
    "grey": {"mode": "L"},
    "cmyk": {"mode": "CMYK"},
    "no subsampling": {"subsampling": 0},
    "rgb": {"keep_rgb": True},
    "optimised": {"optimize": True},
}


def jpeg(kind: str = "baseline") -> bytes:
    options = dict(KINDS[kind])
    return encoded(Image.fromarray(textured()).convert(options.pop("mode", "RGB")), "JPEG", quality=90, **options)


def pixel_data(data: bytes) -> int:
    """Return the position of the first scan's data."""
    start = data.index(b"\xff\xda")
    return start + 2 + struct.unpack(">H", data[start + 2 : start + 4])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_jpeg_is_refused_with_and_without_an_end_marker(kind: str):
    data = jpeg(kind)
    for cut in (data[: len(data) // 2], data[: len(data) // 2] + b"\xff\xd9"):
        with pytest.raises(CorruptSampleError, match="The JPEG is damaged"):
            decode_rgb(cut)


def test_a_jpeg_that_lost_many_bytes_is_refused():
    data = jpeg("no subsampling")
    middle = (pixel_data(data) + len(data)) // 2
    with pytest.raises(CorruptSampleError, match=r"damaged .*(extraneous|premature)"):
        decode_rgb(data[:middle] + data[middle + 2000 :])


@pytest.mark.slow
def test_every_cut_of_a_jpeg_is_refused_or_loses_nothing():
    for kind in ("baseline", "progressive"):
        data = jpeg(kind)
        expected, read = decode_rgb(data), 0
        for length in range(2, len(data)):
            try:
                opened = decode_rgb(data[:length])
            except CorruptSampleError:
                continue
            assert np.array_equal(opened, expected), (kind, length)
            read += 1
        assert read <= 4  # parts of the end marker, and of the last byte


def end_at(data: bytes) -> tuple[bytes, bytes]:
    assert data.endswith(b"\xff\xd9")
    return data[:-2], data[-2:]


def irregular(data: bytes) -> dict[str, bytes]:
    body, end = end_at(data)
    table, scan = data.index(b"\xff\xdb"), data.index(b"\xff\xda")
    files = {
        "bytes behind the start": data[:2] + b"ab" + data[2:],
        "bytes between segments": data[:table] + b"\0\0\0" + data[table:],
        "fill bytes between segments": data[:table] + b"\xff\xff\xff" + data[table:],
        "bytes before the scan": data[:scan] + b"\x01\x02\x03\x04" + data[scan:],
        "no end marker": body,
        "half an end marker": data[:-1],
        "zeros instead of the end": body + bytes(100),
        "zeros before the end": body + bytes(40) + end,
        "fill bytes before the end": body + b"\xff" * 20 + end,
        "two ends": data + end,
        "text behind the end": data + b"something else" * 50,
        "zeros behind the end": data + bytes(5000),
        "another jpeg behind the end": data + data,
        "half a profile": with_segments(data, jpeg_segment(0xE2, b"ICC_PROFILE\0\1\2" + b"x" * 20)),
        "large segments": with_segments(data, *[jpeg_segment(0xED, bytes(65_000))] * 5),
    }
    if b"JFIF\0" in data:
        version = data.index(b"JFIF\0") + 5
        files["another version of JFIF"] = data[:version] + b"\3\1" + data[version + 2 :]
    return files


@pytest.mark.parametrize("kind", KINDS)
def test_irregular_jpegs_are_read_without_a_difference(kind: str):
    data = jpeg(kind)
    expected = decode_rgb(data)
    for name, file in irregular(data).items():
        assert np.array_equal(decode_rgb(file), expected), name
        assert np.array_equal(decode_rgb(file, short_side=30), decode_rgb(data, short_side=30)), name


def test_scan_parameters_that_a_sequential_jpeg_does_not_use_may_be_anything():
    data = jpeg()
    position = pixel_data(data) - 3
    for parameters in (b"\0\0\0", b"\0\x3f\1"):
        odd = data[:position] + parameters + data[position + 3 :]
        assert np.array_equal(decode_rgb(odd), decode_rgb(data))


def test_damage_behind_an_irregularity_is_still_found():
    data = jpeg()
    for file in irregular(data[: len(data) // 2] + b"\xff\xd9").values():
        with pytest.raises(CorruptSampleError, match="damaged"):
            decode_rgb(file)


def test_pil_and_the_fast_decoder_agree_on_cmyk():
    import io

    for mode in ("CMYK",):
        data = encoded(Image.fromarray(textured()).convert(mode), "JPEG", quality=90)
        with Image.open(io.BytesIO(data)) as image:
            assert np.array_equal(decode_rgb(data), np.asarray(image.convert("RGB")))


def test_a_progressive_jpeg_of_endless_scans_is_refused():
    data = jpeg("progressive")
    last = data.rindex(b"\xff\xda")
    with pytest.raises(CorruptSampleError, match=f"more than the {MAX_SCANS} allowed"):
        decode_rgb(data[:last] + data[last:-2] * (MAX_SCANS + 1) + b"\xff\xd9")


@pytest.mark.parametrize("options", [{}, {"compress_level": 0}], ids=["compressed", "stored"])
def test_every_flipped_byte_of_a_png_is_refused_or_changes_nothing(options: dict):
    data = encoded(textured(24, 32), **options)
    data = with_chunks(data, (b"tEXt", b"Comment\0hello"))
    expected = decode_rgb(data)
    for position in range(8, len(data)):
        broken = bytearray(data)
        broken[position] ^= 0x10
        try:
            opened = decode_rgb(bytes(broken))
        except CorruptSampleError:
            continue
        assert np.array_equal(opened, expected), position


def test_a_png_says_which_chunk_is_damaged():
    data = bytearray(encoded(textured()))
    data[len(data) // 2] ^= 1
    with pytest.raises(CorruptSampleError, match=r"The PNG is damaged: its chunk 'IDAT' at byte 33 does not have"):
        decode_rgb(bytes(data))
    with pytest.raises(CorruptSampleError, match=r"chunk 'IDAT' at byte 33 is cut off"):
        decode_rgb(bytes(data[: len(data) // 2]))


def test_swapped_and_lost_chunks_of_a_png_are_refused():
    for level in (0, 6):
        header, (_, content), end = png_chunks(encoded(textured(), compress_level=level))
        size = len(content) // 5 + 1
        parts = [(b"IDAT", content[i : i + size]) for i in range(0, len(content), size)]
        assert np.array_equal(decode_rgb(join_png([header, *parts, end])), textured())
        swapped = [parts[0], parts[2], parts[1], *parts[3:]]
        for chunks in (swapped, [*parts[:2], *parts[3:]], parts[1:], parts[:-1]):
            with pytest.raises(CorruptSampleError, match="cannot be decoded"):
                decode_rgb(join_png([header, *chunks, end]))


def test_a_png_is_read_without_its_end_and_with_damaged_text():
    data = encoded(textured())
    assert np.array_equal(decode_rgb(data[:-12]), textured())
    text = bytearray(with_chunks(data, (b"tEXt", b"Comment\0hello")))
    text[text.index(b"hello")] ^= 1
    assert np.array_equal(decode_rgb(bytes(text)), textured())


def test_accept_damaged_decodes_what_can_be_decoded():
    data = jpeg()
    half = data[: len(data) // 2]
    for file in (half, half + b"\xff\xd9"):
        opened = decode_rgb(file, accept_damaged=True)
        assert opened.shape == (96, 128, 3)
        assert np.array_equal(opened[:16], decode_rgb(data)[:16])
        assert open_image(file, accept_damaged=True).size == (128, 96)
        assert decode_rgb(file, 30, accept_damaged=True).shape == (48, 64, 3)
    assert np.array_equal(decode_rgb(data, accept_damaged=True), decode_rgb(data))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA", "I;16"])
def test_accept_damaged_decodes_what_can_be_decoded_of_a_png(mode: str):
    image = Image.fromarray(textured()).convert("L" if mode == "I;16" else mode)
    image = image.convert("I;16") if mode == "I;16" else image
    data = encoded(image, compress_level=1)
    assert np.array_equal(decode_rgb(data, accept_damaged=True), decode_rgb(data))
    flipped = bytearray(data)
    flipped[-len(data) // 4] ^= 1
    for file in (bytes(flipped), data[: -len(data) // 4]):
        with pytest.raises(CorruptSampleError):
            decode_rgb(file)
        opened = decode_rgb(file, accept_damaged=True)
        assert np.array_equal(opened[:40], decode_rgb(data)[:40])
        assert not np.array_equal(opened, decode_rgb(data))


def test_a_damaged_file_on_disk_is_named(tmp_path):
    path = tmp_path / "half.jpg"
    path.write_bytes(jpeg()[:3000])
    with pytest.raises(CorruptSampleError, match=re.escape(f"{path}: The JPEG is damaged (")):
        open_image(path)


def test_a_png_of_endless_chunks_is_refused(monkeypatch):
    from stylesim.core.images import png_chunks as module

    monkeypatch.setattr(module, "MAX_CHUNKS", 50)
    data = with_chunks(encoded(textured()), *[(b"tEXt", b"a\0")] * 60)
    with pytest.raises(CorruptSampleError, match="more than 50 chunks"):
        decode_rgb(data)


def test_a_png_that_promises_more_than_it_compresses_is_refused():
    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    data = join_png([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10))), (b"IEND", b"")])
    with pytest.raises(CorruptSampleError, match="cannot be decoded"):
        decode_rgb(data)
