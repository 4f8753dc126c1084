"""Bring the pixels of a PIL image, whatever its mode, to 8 bit RGB on white."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from stylesim.core.errors import CorruptSampleError
from stylesim.core.images.colour import Colour, to_srgb
from stylesim.core.images.orientation import turn_of_image

OVERSHOOT = 0.05
"""How far beyond its range a float image may go, as a share of it: resampling does that. It is clipped."""

_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT = 262, 258, 339  # TIFF tags


def to_rgb(image: Image.Image, colour: Colour = "srgb") -> Image.Image:
    """Return an image as RGB, upright, in sRGB, with transparency composited on white.

    Deep greyscale is scaled to 8 bit by the range of its format, where the format has one; otherwise by the smallest
    usual range that holds its largest value (see `_range`).

    Args:
        image: An image of any mode; it is loaded.
        colour: Whether an embedded colour profile is applied.

    Raises:
        CorruptSampleError: If a deep image has negative, infinite or NaN values, or floats above 65535.
    """
    _scale_transparency(image)
    image.load()  # a TIFF is turned, and its tag removed, by this
    turn = turn_of_image(image)
    # CIELAB is a colour space of its own, whatever the profile says.
    profile = image.info.get("icc_profile") if colour == "srgb" and image.mode != "LAB" else None
    if image.mode.startswith("I") or image.mode == "F":
        values, alpha = _deep_grey(image)
    elif image.mode == "La":
        values, alpha = _split(image.convert("LA"))
    else:
        values, alpha = _split(image)
    rgb = to_srgb(values, profile) if profile and values.mode in ("L", "RGB", "CMYK") else _as_rgb(values)
    if alpha is not None:
        rgb.putalpha(alpha)
        rgb = Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB")
    return rgb if turn is None else rgb.transpose(turn)


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_transparency(image: Image.Image) -> None:
    """Scale the transparent value of a PNG as PIL scales the pixels: from 2 or 4 bits, or three times 16, to 8.

    The image must not be loaded, because a loaded image no longer knows its depth.
    """
    value = image.info.get("transparency")
    tiles = getattr(image, "tile", None)  # that of a loaded image is empty
    rawmode = str(tiles[0][3]) if image.format == "PNG" and tiles else ""
    if rawmode in ("L;2", "L;4") and isinstance(value, int):
        image.info["transparency"] = value * {"L;2": 85, "L;4": 17}[rawmode]
    elif rawmode == "RGB;16B" and isinstance(value, tuple):
        image.info["transparency"] = tuple(one >> 8 for one in value)


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours of an image (L, RGB, CMYK or another mode without alpha) and its alpha channel (L)."""
    if image.has_transparency_data:
        is_grey = image.mode in ("1", "L", "LA")
        rgba = image.convert("RGBA")
        return rgba.getchannel("R") if is_grey else rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _deep_grey(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scale greyscale of more than 8 bits to mode L; return its alpha channel too, if one value is transparent."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.format == "TIFF" and image.mode == "I" and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1:
        values = values.view(np.uint32)  # PIL reads unsigned values as signed ones
    transparent = image.info.get("transparency")
    alpha = None
    if isinstance(transparent, int):
        alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    full = _range(image, values)
    scaled = values.astype(np.float64) * (255 / full)
    if image.format == "TIFF" and tags.get(_PHOTOMETRIC) == 0:  # WhiteIsZero, which PIL inverts only up to 8 bit
        scaled = 255 - scaled
    return Image.fromarray(scaled.clip(0, 255).round().astype(np.uint8)), alpha


def _range(image: Image.Image, values: Shaped[np.ndarray, "h w"]) -> float:
    """Return the value that stands for white.

    Of 16 bit files it is 65535, of TIFFs with fewer bits theirs. Integers of 32 bit, and floats, have no range that
    all programs agree on: it is the smallest of 255 (floats: 1, 255), 65535 and the largest integer that holds the
    largest value.
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not np.isfinite([low, high]).all():
        raise CorruptSampleError("The image has values that are infinite or no numbers (NaN).")
    bits = getattr(image, "tag_v2", {}).get(_BITS, (16 if image.mode.startswith("I;16") else 32,))[0]
    if image.mode == "F":
        full = next((full for full in (1.0, 255.0, 65535.0) if high <= full * (1 + OVERSHOOT)), 0.0)
    elif image.mode.startswith("I;16"):
        full = float((1 << bits) - 1)
    elif image.format == "TIFF" and bits == 16:  # with a sign
        full = 32767.0
    elif image.format == "PPM":  # which PIL scales to 16 bit
        full = 65535.0
    else:
        largest = np.iinfo(values.dtype).max
        full = next(float(full) for full in (255, 65535, largest) if high <= full)
    if not full or low < -OVERSHOOT * full:
        raise CorruptSampleError(
            f"The image has values from {low:g} to {high:g}, expected 0 to 1, to 255, to 65535 or to the largest"
            " integer: scale them, and save the image with 8 bits."
        )
    return full
