"""Open one image, whatever its file holds, as 8 bit RGB, upright, on white.

Every image of the project is opened here, so that training, embedding and scoring see the same pixels. Colour profiles
are ignored, and of an animation the first frame is taken, as by the published CSD code, which uses PIL.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import simplejpeg
from PIL import Image

from stylesim.core.errors import CorruptSampleError

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

MAX_PIXELS = 2 * 89_478_485
"""Where PIL itself raises DecompressionBombError: an RGB image of half a gigabyte."""
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""The formats of PIL that are read; none of them runs another program."""

ImageLike: TypeAlias = "bytes | str | Path | Image.Image | np.ndarray | Tensor"

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {  # EXIF orientation -> what turns the stored image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SIDEWAYS = {_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}


def open_image(source: ImageLike, *, max_pixels: int = MAX_PIXELS, short_side: int | None = None) -> Image.Image:
    """Open an image as PIL RGB, upright, with transparency composited on white.

    Args:
        source: An encoded file (bytes or a path), a PIL image, an array `[h w]` or `[h w c]`, or a tensor `[c h w]`,
            with c of 1, 3 or 4. Arrays and tensors are uint8 in 0..255, or floats in [0, 1], rounded to 8 bit.
        max_pixels: Largest number of pixels that is accepted.
        short_side: If given, a JPEG may be decoded at a reduced scale whose short side is still at least so many px.

    Raises:
        CorruptSampleError: If the file is missing, is not an image, or is truncated, if the image has more than
            `max_pixels` pixels, or if the source is of another type, shape or range.
    """
    if isinstance(source, bytes):
        return Image.fromarray(decode_rgb(source, short_side, max_pixels=max_pixels))
    if isinstance(source, str | Path):
        try:
            return open_image(Path(source).read_bytes(), max_pixels=max_pixels, short_side=short_side)
        except OSError as error:
            raise CorruptSampleError(f"The image {source} cannot be read: {error.strerror or error}.") from error
        except CorruptSampleError as error:
            raise CorruptSampleError(f"{source}: {error}") from error
    image = source if isinstance(source, Image.Image) else _from_array(source)
    _check_pixels(*image.size, max_pixels)
    return _to_rgb(image)


def decode_rgb(
    data: bytes, short_side: int | None = None, *, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "h w 3"]:
    """Decode the bytes of a file to RGB as `open_image` does; a JPEG by simplejpeg, the fastest decoder we know.

    Args:
        data: An encoded image.
        short_side: If given, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides stay at least so
            many px; the caller still resizes it.
        max_pixels: Largest number of pixels that is accepted.

    Raises:
        CorruptSampleError: If the bytes are not an image, or are truncated, or hold more than `max_pixels` pixels.
    """
    if data[:2] == b"\xff\xd8":
        try:
            return _decode_jpeg(data, short_side, max_pixels)
        except ValueError as error:
            if isinstance(error, CorruptSampleError):
                raise
            # CMYK, or an irregularity that simplejpeg is too strict about: PIL decides.
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            _check_pixels(*image.size, max_pixels)
            if short_side:
                image.draft(image.mode, (short_side, short_side))
            return np.asarray(_to_rgb(image))
    except (CorruptSampleError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise CorruptSampleError(f"{error}: scale the image down, or leave it out.") from error
    except Exception as error:  # PIL's decoders raise nearly everything on a broken file
        # Where PIL knows no file name it gives the address of the buffer, which helps nobody.
        reason = str(error).split("<_io")[0].strip() or type(error).__name__
        raise CorruptSampleError(
            f"The image cannot be decoded ({len(data):,} bytes; {reason}): the file is damaged, or in none of the"
            f" formats {', '.join(FORMATS)}."
        ) from error


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width of a JPEG as it is shown, upright, from its header; None for any other file."""
    try:
        height, width = map(int, simplejpeg.decode_jpeg_header(data)[:2])
    except ValueError:
        return None
    return (width, height) if _turn(data) in _SIDEWAYS else (height, width)


def _decode_jpeg(data: bytes, short_side: int | None, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
    *size, colours, _ = simplejpeg.decode_jpeg_header(data)
    height, width = map(int, size)
    _check_pixels(width, height, max_pixels)
    if colours in ("CMYK", "YCCK"):
        raise ValueError("simplejpeg does not invert Adobe's CMYK")
    # The scales that libjpeg decodes from part of the coefficients, and the only ones that PIL's draft knows.
    scale = max((s for s in (8, 4, 2) if short_side and min(height, width) // s >= short_side), default=1)
    rows, columns = -(-height // scale), -(-width // scale)
    pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=rows, min_width=columns, min_factor=scale)
    turn = _turn(data)
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))


def _turn(jpeg: bytes) -> Image.Transpose | None:
    """Return what turns a JPEG upright; None if it is upright."""
    if b"Exif\0\0" not in jpeg[:65536]:
        return None
    try:
        with Image.open(BytesIO(jpeg), formats=("JPEG",)) as header:
            return _UPRIGHT.get(_orientation(header))
    except Exception:  # too many pixels, or a header that PIL does not understand: the decoder decides
        return None


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block loses the rotation, not the image
        return 1


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise CorruptSampleError(
            f"The image is {width} x {height} pixels, more than the {max_pixels:,} allowed (so that no image fills the"
            f" memory): scale it down, or leave it out."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(_orientation(image))
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bit(image)
    if image.mode != "RGB" or "transparency" in image.info:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
    image.load()
    return image if turn is None else image.transpose(turn)


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Scale greyscale of 16 bit (0..65535), of 32 bit (the same range, as in PNG) or float (0..1, or 0..255)."""
    values = np.asarray(image, dtype=np.float64)
    if image.mode != "F":
        values = values / 257
    elif values.size and np.nanmax(values) <= 1:
        values = values * 255
    return Image.fromarray(np.nan_to_num(values).clip(0, 255).round().astype(np.uint8))


def _from_array(source: np.ndarray | Tensor) -> Image.Image:
    if isinstance(source, np.ndarray):
        array = source
    elif hasattr(source, "detach"):  # a tensor, recognised without importing torch
        array = source.detach().cpu().float().numpy() if source.is_floating_point() else source.detach().cpu().numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    else:
        raise CorruptSampleError(
            f"An image must be a path, bytes, a PIL image, an array or a tensor, got {type(source)}."
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise CorruptSampleError(
            f"An image array must have the shape [h w], [h w 3] or [h w 4], an image tensor [3 h w], got "
            f"{list(source.shape)}."
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # written so that NaN is refused as well
            raise CorruptSampleError(
                f"A float image must have values in [0, 1], got {array.min():g} to {array.max():g}: "
                f"divide it by 255, or pass uint8."
            )
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise CorruptSampleError(f"An image array must be uint8, or float in [0, 1], got {array.dtype}.")
    return Image.fromarray(np.ascontiguousarray(array))
