"""Image files that tests make: encoded images, PNGs from chunks, JPEGs with more segments, and ICC profiles."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
"""Primaries as rows of XYZ, adapted to D50 (the primaries' published specifications)."""
ADOBE_GAMMA = 563 / 256


def gradient(height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth, asymmetric and coloured: each orientation differs, and JPEG keeps it within a few levels."""
    row, column = np.mgrid[:height, :width]
    red, green = 255 * row / height, 255 * column / width
    return np.stack([red, green, (red + green) / 2], axis=-1).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Encode an image."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    """Return the pixels of an RGB image as signed integers."""
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def jpeg_segment(marker: int, content: bytes) -> bytes:
    """Return one segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """Put segments right behind the start of a JPEG."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def png_chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Return (type, content) of each chunk of a PNG."""
    chunks, position = [], 8
    while position < len(png):
        size = int.from_bytes(png[position : position + 4], "big")
        chunks.append((png[position + 4 : position + 8], png[position + 8 : position + 8 + size]))
        position += 12 + size
    return chunks


def join_png(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write a PNG of chunks, with their checksums."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in chunks:
        parts += [struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(kind + content))]
    return b"".join(parts)


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Put chunks right behind the header of a PNG."""
    first, *rest = png_chunks(png)
    return join_png([first, *chunks, *rest])


def rgb_profile(primaries: Sequence[Sequence[float]], gamma: float | Sequence[int], name: str = "test") -> bytes:
    """Return an ICC profile of three primaries and a tone curve: a gamma, or a table of 16 bit values."""
    curve = _curve(gamma)
    tags = {tag: _xyz(values) for tag, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", name, {**tags, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def grey_profile(gamma: float) -> bytes:
    """Return an ICC profile of a grey scale with a gamma."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", "grey", {b"kTRC": _curve(gamma)})


def cmyk_profile(inks: dict[tuple[int, int, int, int], tuple[float, float, float]]) -> bytes:
    """Return an ICC profile of a printer: the CIELAB colour of every combination of full inks, others in between."""
    nodes = [(i >> 3 & 1, i >> 2 & 1, i >> 1 & 1, i & 1) for i in range(16)]
    lab = b"".join(bytes([round(inks[n][0] * 2.55), round(inks[n][1] + 128), round(inks[n][2] + 128)]) for n in nodes)
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + bytes(range(256)) * 4 + lab + bytes(range(256)) * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", "inks", {b"A2B0": table})


def to_linear(levels: np.ndarray) -> np.ndarray:
    """Decode sRGB levels of 255 (IEC 61966-2-1)."""
    values = levels / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def from_linear(light: np.ndarray) -> np.ndarray:
    """Encode light in [0, 1] as sRGB levels of 255."""
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _curve(gamma: float | Sequence[int]) -> bytes:
    values = list(gamma) if isinstance(gamma, Sequence) else [round(gamma * 256)]
    return b"curv" + bytes(4) + struct.pack(f">I{len(values)}H", len(values), *values)


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def _profile(kind: bytes, space: bytes, connection: bytes, name: str, tags: dict[bytes, bytes]) -> bytes:
    text = name.encode() + b"\0"
    description = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    white = _xyz((0.9642, 1.0, 0.8249))
    tags = {b"desc": description, b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": white, **tags}
    table, content, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, value in tags.items():
        value += bytes(-len(value) % 4)
        table += tag + struct.pack(">II", offset + len(content), len(value))
        content += value
    illuminant = struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    header = struct.pack(">I4sI4s4s4s", offset + len(content), bytes(4), 0x02400000, kind, space, connection)
    header += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + illuminant
    return header.ljust(128, b"\0") + table + content
