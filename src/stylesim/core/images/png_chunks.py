"""Read the chunks of a PNG: check their checksums, and find what describes the pixels."""

from __future__ import annotations

import zlib
from contextlib import suppress
from typing import NamedTuple

from stylesim.core.errors import CorruptSampleError
from stylesim.core.images.colour import MAX_PROFILE

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 1_000_000
"""A PNG of a gigabyte, written in pieces of 8 kB, has a tenth of them."""
MAX_DAMAGED = 1 << 26
"""Most pixels of a damaged PNG that are recovered."""
MAX_XMP = 1 << 22
"""Largest metadata in bytes, once decompressed, that are searched for an orientation."""

_HARMLESS = frozenset(
    b"tEXt zTXt iTXt tIME pHYs bKGD hIST sPLT sBIT gAMA cHRM sRGB cICP mDCV cLLI acTL fcTL fdAT".split()
)
"""Chunks that change nothing in the pixels as they are read here, so that damage in them does not matter.

The checksum of any other chunk is compared, as a damaged name can hide one that matters."""


class PngFile(NamedTuple):
    """A PNG reduced to its pixels, and what is known of them."""

    pixels: bytes
    """A PNG of the chunks that PIL needs for the pixels of the first frame."""
    frames: int
    profile: bytes | None
    exif: bytes | None
    xmp: bytes | None


def read_png(data: bytes, *, accept_damaged: bool = False) -> PngFile:
    """Check a PNG and take it apart.

    Text and other chunks that do not change the pixels are left out, so that they can be as large as they like.

    Args:
        data: The file.
        accept_damaged: Do not compare checksums, and let pixels that cannot be decompressed be black.

    Raises:
        CorruptSampleError: If a chunk that matters is damaged or cut off, or there are too many chunks.
    """
    view, position, count = memoryview(data), len(SIGNATURE), 0
    kept: list[bytes | memoryview] = [SIGNATURE]
    found: dict[bytes, memoryview] = {}
    xmp: bytes | None = None
    kind = b""
    while position + 8 <= len(data) and kind != b"IEND":
        count += 1
        size, kind = int.from_bytes(view[position : position + 4], "big"), bytes(view[position + 4 : position + 8])
        content, end = view[position + 8 : position + 8 + size], position + 12 + size
        is_critical = not kind[0] & 0x20
        if count > MAX_CHUNKS:
            raise CorruptSampleError(f"The PNG has more than {MAX_CHUNKS:,} chunks.")
        if kind not in _HARMLESS:
            # The last chunk of pixels may lack its checksum: the compressed data have another one.
            checksum = view[end - 4 : end].tobytes()
            is_intact = zlib.crc32(content, zlib.crc32(kind)).to_bytes(4, "big") == checksum
            if not is_intact and not accept_damaged:
                reason = "is cut off" if end > len(data) else "does not have the checksum it should have"
                raise CorruptSampleError(
                    f"The PNG is damaged: its chunk {kind.decode('latin-1')!r} at byte {position:,} {reason}."
                )
            if is_critical or (kind == b"tRNS" and kind not in found):
                kept += [view[position : position + 8 + size], checksum if is_intact else _checksum(kind, content)]
        if kind == b"iTXt" and xmp is None:
            xmp = _xmp(content)
        elif kind in (b"zTXt", b"tEXt") and (exif := _imagemagick_exif(kind, content)):
            found[b"exif"] = memoryview(exif)
        found.setdefault(kind, content)
        position = end
    if accept_damaged:
        kept = _recompressed(kept)
    elif kind != b"IEND":
        kept += [b"\0\0\0\0IEND", _checksum(b"IEND", b"")]
    exif = found.get(b"eXIf") or found.get(b"exif")
    frames = int.from_bytes(found[b"acTL"][:4], "big") if b"acTL" in found else 1
    return PngFile(
        b"".join(kept),
        frames,
        _profile(found[b"iCCP"]) if b"iCCP" in found else None,
        bytes(exif) if exif else None,
        xmp,
    )


def _recompressed(parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return the parts of a PNG with pixel data that are complete and free of errors, if need be with zeros."""
    chunks = [(bytes(part[4:8]), bytes(part[8:])) for part in parts[1::2]]
    header = next((content for kind, content in chunks if kind == b"IHDR"), b"").ljust(13, b"\0")
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    if not 0 < width * height <= MAX_DAMAGED:
        return parts
    channels = {2: 3, 4: 2, 6: 4}.get(header[9], 1)
    row = 1 + (width * channels * header[8] + 7) // 8
    # An interlaced PNG holds seven small images, with rows of their own.
    size = row * height + (row + 2 * (height + 8) if header[12] else 0)
    compressed = b"".join(content for kind, content in chunks if kind == b"IDAT")
    decoder, pixels = zlib.decompressobj(), bytearray()
    with suppress(zlib.error):
        for start in range(0, len(compressed), 64):
            if len(pixels) >= size:
                break
            pixels += decoder.decompress(compressed[start : start + 64], size - len(pixels))
    pixels += bytes(size - len(pixels))
    if not header[12]:
        pixels[::row] = bytes(one if one <= 4 else 0 for one in pixels[::row])  # there are filters 0 to 4
    pixels = zlib.compress(pixels, 0)
    others = [chunk for chunk in chunks if chunk[0] not in (b"IDAT", b"IEND")]
    return [
        SIGNATURE,
        *(
            len(content).to_bytes(4, "big") + kind + content + _checksum(kind, content)
            for kind, content in [*others, (b"IDAT", pixels), (b"IEND", b"")]
        ),
    ]


def _checksum(kind: bytes, content: bytes | memoryview) -> bytes:
    return zlib.crc32(content, zlib.crc32(kind)).to_bytes(4, "big")


def _profile(content: memoryview) -> bytes:
    """Return the profile of an iCCP chunk; bytes that are no profile if it cannot be decompressed."""
    compressed = bytes(content).partition(b"\0")[2][1:]
    return _inflate(compressed, MAX_PROFILE + 1) or b"not a profile"


def _xmp(content: memoryview) -> bytes | None:
    if content[:18] != b"XML:com.adobe.xmp\0":
        return None
    is_compressed = content[18:19] == b"\1"
    text = bytes(content[20:]).split(b"\0", 2)[-1]  # behind the language and the translated keyword
    return _inflate(text, MAX_XMP) if is_compressed else text[:MAX_XMP]


def _imagemagick_exif(kind: bytes, content: memoryview) -> bytes | None:
    """Return the EXIF block that ImageMagick wrote as hexadecimal text before PNG had a chunk for it."""
    keyword, _, text = bytes(content[: MAX_XMP + 40]).partition(b"\0")
    if keyword not in (b"Raw profile type exif", b"Raw profile type APP1"):
        return None
    text = _inflate(text[1:], MAX_XMP) if kind == b"zTXt" else text
    try:
        return bytes.fromhex(b"".join((text or b"").split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return None


def _inflate(compressed: bytes, limit: int) -> bytes | None:
    """Decompress at most `limit` bytes; None if that fails."""
    try:
        return zlib.decompressobj().decompress(compressed, limit)
    except zlib.error:
        return None
