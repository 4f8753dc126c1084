"""Open one image, whatever its file holds."""

from __future__ import annotations

import logging
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

import numpy as np
from PIL import Image

from stylesim.core.errors import CorruptSampleError
from stylesim.core.images import jpeg
from stylesim.core.images.arrays import image_of_array
from stylesim.core.images.colour import Colour, is_srgb, to_srgb
from stylesim.core.images.formats import FORMATS, plugin_for, register
from stylesim.core.images.orientation import SIDEWAYS
from stylesim.core.images.pixel_formats import to_rgb
from stylesim.core.images.png_chunks import SIGNATURE, read_png
from stylesim.core.log_once import log_once

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

MAX_PIXELS = 2 * 89_478_485
"""Where PIL itself raises DecompressionBombError: an RGB image of half a gigabyte."""

ImageLike: TypeAlias = "bytes | str | Path | BinaryIO | Image.Image | np.ndarray | Tensor"


def open_image(
    source: ImageLike,
    *,
    max_pixels: int = MAX_PIXELS,
    short_side: int | None = None,
    colour: Colour = "srgb",
    accept_damaged: bool = False,
) -> Image.Image:
    """Open an image as PIL RGB, upright, with transparency composited on white.

    Args:
        source: An encoded file (bytes, a path, or an open binary file, which is read from its start), a PIL image, an
            array `[h w]` or `[h w c]`, or a tensor `[c h w]`, with c of 1, 3 or 4. Arrays and tensors are uint8 in
            0..255, or floats in [0, 1], rounded to 8 bit.
        max_pixels: Largest number of pixels that is accepted.
        short_side: If given, a JPEG may be decoded at a reduced scale whose short side is still at least so many px.
        colour: `srgb` converts an image with an embedded ICC profile to sRGB; `raw` ignores the profile.
        accept_damaged: Decode what can be decoded of a damaged JPEG or PNG, instead of refusing it.

    Raises:
        CorruptSampleError: If the file is missing, is not an image, or is damaged, if the image has more than
            `max_pixels` pixels, or if the source is of another type, shape or range.
    """
    if isinstance(source, str | Path):
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise CorruptSampleError(f"The image {source} cannot be read: {error.strerror or error}.") from error
        try:
            return Image.fromarray(
                decode_rgb(data, short_side, max_pixels=max_pixels, colour=colour, accept_damaged=accept_damaged)
            )
        except CorruptSampleError as error:
            raise CorruptSampleError(f"{source}: {error}") from error
    if not isinstance(source, bytes | Image.Image) and hasattr(source, "read"):
        source = _read_file(cast("BinaryIO", source))
    if isinstance(source, bytes | bytearray | memoryview):
        return Image.fromarray(
            decode_rgb(bytes(source), short_side, max_pixels=max_pixels, colour=colour, accept_damaged=accept_damaged)
        )
    image = source if isinstance(source, Image.Image) else image_of_array(source)
    _check_pixels(*image.size, max_pixels)
    return to_rgb(image, colour)


def decode_rgb(
    data: bytes,
    short_side: int | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    colour: Colour = "srgb",
    accept_damaged: bool = False,
) -> UInt8[np.ndarray, "h w 3"]:
    """Decode the bytes of a file to RGB as `open_image` does; a JPEG by simplejpeg, the fastest decoder we know.

    Args:
        data: An encoded image.
        short_side: If given, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides stay at least so
            many px; the caller still resizes it.
        max_pixels: Largest number of pixels that is accepted.
        colour: `srgb` converts an image with an embedded ICC profile to sRGB; `raw` ignores the profile.
        accept_damaged: Decode what can be decoded of a damaged JPEG or PNG, instead of refusing it.

    Raises:
        CorruptSampleError: If the bytes are not an image, or are damaged, or hold more than `max_pixels` pixels.
    """
    try:
        if data[:2] == jpeg.START:
            try:
                return _decode_jpeg(data, short_side, max_pixels, colour, accept_damaged)
            except jpeg.Unsupported:
                pass  # PIL decides
        with _open_file(data, accept_damaged) as image:
            _check_pixels(*image.size, max_pixels)
            if short_side:
                image.draft(image.mode, (short_side, short_side))
            _tell_of_frames(image)
            return np.asarray(to_rgb(image, colour))
    except (CorruptSampleError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise CorruptSampleError(f"{error}: scale the image down, or leave it out.") from error
    except Exception as error:  # PIL's decoders raise nearly everything on a broken file
        raise CorruptSampleError(_reason(data, error)) from error


def image_size(file: str | Path) -> tuple[int, int]:
    """Return the width and height of an image file as it is stored, usually from its first bytes alone.

    Raises:
        CorruptSampleError: If the file cannot be read, or is not an image.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            return image.size
    except Exception:  # also a format that needs a plugin, or a PNG with more text than PIL takes
        try:
            with _open_file(data := Path(file).read_bytes()) as image:
                return image.size
        except OSError as error:
            reason = error.strerror or _reason(data, error)
            raise CorruptSampleError(f"{file}: {reason}") from error
        except Exception as error:
            raise CorruptSampleError(f"{file}: {_reason(data, error)}") from error


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width of a JPEG as it is shown, upright, from its header; None for any other file."""
    try:
        height, width, _ = jpeg.stored_size(data)
    except ValueError:
        return None
    return (width, height) if jpeg.read_header(data).turn in SIDEWAYS else (height, width)


def _decode_jpeg(
    data: bytes, short_side: int | None, max_pixels: int, colour: Colour, accept_damaged: bool
) -> UInt8[np.ndarray, "h w 3"]:
    header = jpeg.read_header(data)
    if header.size is None:
        raise jpeg.Unsupported("its size is not stated")
    _check_pixels(*header.size, max_pixels)
    pixels = jpeg.decode(data, header, short_side, accept_damaged=accept_damaged)
    profile, turn = header.profile if colour == "srgb" else None, header.turn
    if profile and pixels.shape[2] == 3 and is_srgb(profile):
        profile = None
    if pixels.shape[2] == 3 and profile is None and turn is None:
        return pixels
    image = jpeg.as_image(pixels, header)
    image = to_srgb(image, profile) if profile else image.convert("RGB")
    return np.asarray(image if turn is None else image.transpose(turn))


def _open_file(data: bytes, accept_damaged: bool = False) -> Image.Image:
    """Open a file with PIL; a PNG is checked, and reduced to its pixels."""
    if data.startswith(SIGNATURE):
        png = read_png(data, accept_damaged=accept_damaged)
        image = Image.open(BytesIO(png.pixels), formats=("PNG",))
        found = {"icc_profile": png.profile, "exif": png.exif, "xmp": png.xmp, "frames": png.frames}
        image.info.update({key: value for key, value in found.items() if value is not None})
        return image
    plugin = plugin_for(data)
    formats = (*FORMATS, plugin.format) if plugin and register(plugin) else FORMATS
    return Image.open(BytesIO(data), formats=formats)


def _tell_of_frames(image: Image.Image) -> None:
    is_animated = image.info.get("frames", 1) > 1
    if image.format != "PNG":
        is_animated = bool(getattr(image, "is_animated", False))  # of a GIF, this reads up to the second frame
    if is_animated:
        log_once(
            logging.WARNING,
            f"A {image.format} has several pages or frames: the first is used, of all such images. This is said once.",
        )


def _read_file(file: BinaryIO) -> bytes:
    """Return the content of an open file from its start, or from where it stands if it cannot be rewound."""
    try:
        if file.seekable():
            file.seek(0)
        data = file.read()
    except (OSError, ValueError) as error:  # ValueError: the file is closed
        raise CorruptSampleError(f"The open file {getattr(file, 'name', file)} cannot be read: {error}.") from error
    if not isinstance(data, bytes):
        raise CorruptSampleError(f"An open image file must be binary (mode 'rb'), got {type(data).__name__} from it.")
    return data


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise CorruptSampleError(
            f"The image is {width} x {height} pixels, more than the {max_pixels:,} allowed (so that no image fills the"
            f" memory): scale it down, or leave it out."
        )


def _reason(data: bytes, error: Exception) -> str:
    """Say why a file cannot be decoded, and what it needs if it is in a format of a plugin."""
    if (plugin := plugin_for(data)) and not register(plugin):
        return (
            f"The image is a {plugin.format} file, for which a package is missing: pip install {plugin.package}, or"
            " save it in another format."
        )
    # Where PIL knows no file name it gives the address of the buffer, which helps nobody.
    reason = str(error).split("<_io")[0].strip() or type(error).__name__
    return (
        f"The image cannot be decoded ({len(data):,} bytes; {reason}): the file is damaged, or in none of the formats"
        f" {', '.join(FORMATS)}."
    )
