"""Decode JPEGs with simplejpeg (libjpeg-turbo), which tells damage that other decoders pass over."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

from stylesim.core.errors import CorruptSampleError
from stylesim.core.images.orientation import turn_of_metadata

START = b"\xff\xd8"
MAX_SCANS = 500
"""Most scans of a progressive JPEG; ordinary ones have about ten, and each of them costs as much as a whole image."""
MAX_SEGMENTS = 10_000
"""Segments before the pixels that are looked at."""

_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_APP0, _APP1, _APP2, _EOI, _SOS = 0xE0, 0xE1, 0xE2, 0xD9, 0xDA
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length: TEM, RST0 to RST7, SOI
_UNSUPPORTED = ("tjDecompress", "Unsupported", "Sorry")
"""How errors begin that say nothing of damage: PIL may be able to decode the file."""


class Segment(NamedTuple):
    """One segment of a JPEG's header."""

    marker: int
    start: int
    """Position of the 0xFF before the marker."""
    content: bytes


class JpegHeader(NamedTuple):
    """What stands before the pixels of a JPEG."""

    segments: list[Segment]
    process: int
    """The second byte of the SOF marker: 0xC0 and 0xC1 are sequential, 0xC2 is progressive; 0 if there is none."""
    pixels: int
    """Position of the first SOS marker; the length of the file if there is none."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height as stored; None if they are not stated."""
        frame = next((s.content for s in self.segments if s.marker == self.process), b"")
        if len(frame) < 6:
            return None
        return int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")

    @property
    def is_grey(self) -> bool:
        """Whether the image has one channel."""
        return any(s.marker == self.process and s.content[5:6] == b"\1" for s in self.segments)

    @property
    def turn(self) -> Image.Transpose | None:
        """What turns the image upright; None if it is upright."""
        exif, xmp = (
            next((s.content for s in self.segments if s.marker == _APP1 and s.content.startswith(start)), None)
            for start in (_EXIF, _XMP)
        )
        return turn_of_metadata(exif, xmp) if exif or xmp else None

    @property
    def profile(self) -> bytes | None:
        """The ICC profile; bytes that are no profile if parts of it are missing; None if there is none."""
        parts = [s.content[len(_ICC) :] for s in self.segments if s.marker == _APP2 and s.content.startswith(_ICC)]
        if not parts:
            return None
        in_order = {part[0]: part[2:] for part in parts if len(part) > 2}
        total = parts[0][1] if len(parts[0]) > 1 else 0
        return b"".join(in_order.get(number, b"") for number in range(1, total + 1)) or b"not a profile"


def read_header(data: bytes) -> JpegHeader:
    """Read the segments of a JPEG up to its pixels. What does not belong to a segment is passed over."""
    segments: list[Segment] = []
    process, position = 0, len(START)
    while len(segments) < MAX_SEGMENTS:
        start = position = data.find(b"\xff", position)
        while data[position : position + 1] == b"\xff":  # any number of them may stand before a marker
            start, position = position, position + 1
        if start < 0 or position >= len(data):
            break
        marker = data[position]
        if marker == _SOS:
            return JpegHeader(segments, process, start)
        position += 1
        if marker == _EOI:
            break
        if marker == 0 or marker in _ALONE:
            continue
        end = position + int.from_bytes(data[position : position + 2], "big")
        segments.append(Segment(marker, start, data[position + 2 : end]))
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # not DHT, JPG, DAC
            process = marker
        position = max(end, position + 2)
    return JpegHeader(segments, process, len(data))


class Unsupported(ValueError):
    """A JPEG that simplejpeg cannot decode, though it may be intact."""


def decode(
    data: bytes, header: JpegHeader, min_side: int | None, *, accept_damaged: bool = False
) -> UInt8[np.ndarray, "h w c"]:
    """Decode the stored pixels of a JPEG: RGB, or CMYK (3 or 4 channels).

    Irregularities that leave every pixel as it is (see `_tidied`) are accepted. Of damage, only that is found which
    makes the compressed data impossible; JPEG has no checksum.

    Args:
        data: The file.
        header: Its header.
        min_side: If given, the image is decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides stay at least so
            many px.
        accept_damaged: Decode what can be decoded of a damaged file.

    Raises:
        CorruptSampleError: If the file is damaged.
        Unsupported: If it is of a kind that simplejpeg cannot decode.
    """
    if header.process == 0xC2 and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise CorruptSampleError(f"The progressive JPEG has {scans:,} scans, more than the {MAX_SCANS} allowed.")
    try:
        return _decode(data, min_side)
    except ValueError as error:
        reason = str(error)
    try:
        if accept_damaged:
            return _decode(data, min_side, strict=False)
        tidied = _tidied(data, header)
        if tidied != data:
            return _decode(tidied, min_side)
    except ValueError as error:
        reason = str(error)
    if accept_damaged or reason.startswith(_UNSUPPORTED):
        raise Unsupported(reason)
    raise CorruptSampleError(f"The JPEG is damaged ({reason.removeprefix('Corrupt JPEG data: ')}).")


def as_image(pixels: UInt8[np.ndarray, "h w c"], header: JpegHeader) -> Image.Image:
    """Return decoded pixels as a PIL image of mode L, RGB or CMYK, as the file stores them."""
    height, width, channels = pixels.shape
    if channels == 4:  # as PIL does, which takes all such files for inverted, as Photoshop writes them
        return Image.frombuffer("CMYK", (width, height), pixels.tobytes(), "raw", "CMYK;I", 0, 1)
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if header.is_grey else pixels)


def stored_size(data: bytes, *, strict: bool = True) -> tuple[int, int, str]:
    """Return the height, the width and the colour space of a JPEG as it is stored.

    Raises:
        ValueError: If the header is irregular.
    """
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=strict)
    return int(height), int(width), colours


def _decode(data: bytes, min_side: int | None, *, strict: bool = True) -> UInt8[np.ndarray, "h w c"]:
    height, width, colours = stored_size(data, strict=strict)
    # The scales that libjpeg decodes from part of the coefficients, and the only ones that PIL's draft knows.
    scale = max((s for s in (8, 4, 2) if min_side and min(height, width) // s >= min_side), default=1)
    rows, columns = -(-height // scale), -(-width // scale)
    space = "CMYK" if colours in ("CMYK", "YCCK") else "RGB"
    return simplejpeg.decode_jpeg(data, space, min_height=rows, min_width=columns, min_factor=scale, strict=strict)


def _tidied(data: bytes, header: JpegHeader) -> bytes:
    """Return a JPEG with the same pixels, without the irregularities that a strict decoder takes for damage.

    These are bytes between the segments of the header, a JFIF version above 1, a colour profile of which parts are
    missing, scan parameters that a sequential JPEG does not use, a missing end marker, and zeros before or instead of
    it.
    """
    parts = [START]
    for marker, _, content in header.segments:
        if marker == _APP0 and content[:5] == b"JFIF\0" and content[5:6] > b"\1":
            content = content[:5] + b"\1\2" + content[7:]
        if marker != _APP2:
            parts.append(b"\xff" + bytes([marker]) + (len(content) + 2).to_bytes(2, "big") + content)
    scan = data[header.pixels :]
    if header.process in (0xC0, 0xC1) and len(scan) > 5 and scan.find(b"\xff\xda", 2) < 0:
        begin = 5 + 2 * scan[4]
        scan = scan[:begin] + b"\0\x3f\0" + scan[begin + 3 :]
    end = scan.rfind(b"\xff\xd9")
    has_end = end >= 0 and not scan[end + 2 :].strip(b"\0\xff")
    scan = _without_padding(scan[:end] if has_end else scan)
    if not has_end and header.process == 0xC2 and not _is_complete(data, header):
        return data
    return b"".join([*parts, scan, b"\xff\xd9"])


def _without_padding(scan: bytes) -> bytes:
    """Return a scan without the zeros and the 0xFF at its end."""
    stripped = scan.rstrip(b"\0\xff")
    rest = scan[len(stripped) :]
    # Compressed data can themselves end in 0xFF 0x00.
    return stripped + b"\xff\0" * (len(rest[: len(rest) - len(rest.lstrip(b"\xff\0"))]) > 1 and rest[:2] == b"\xff\0")


def _is_complete(data: bytes, header: JpegHeader) -> bool:
    """Return whether the scans of a progressive JPEG hold every bit of every coefficient.

    One that is cut between two scans is a valid JPEG without its fine detail, which no decoder complains about.
    """
    frame = next((s.content for s in header.segments if s.marker == 0xC2), b"")
    components = {frame[6 + 3 * i] for i in range(frame[5])} if len(frame) >= 6 + 3 * frame[5] else set()
    complete: set[tuple[int, int]] = set()
    position = header.pixels
    while position >= 0:
        scan = data[position + 4 : position + 16]
        n = scan[0] if scan else 0
        if n and len(scan) > 2 * n + 3:
            first, last, bits = scan[2 * n + 1 : 2 * n + 4]
            if not bits & 15:
                complete |= {(scan[1 + 2 * i], c) for i in range(n) for c in range(first, last + 1)}
        position = data.find(b"\xff\xda", position + 2)
    return bool(components) and {(one, c) for one in components for c in range(64)} <= complete
