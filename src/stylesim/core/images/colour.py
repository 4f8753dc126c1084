"""Convert images from their embedded colour profile to sRGB."""

from __future__ import annotations

import logging
from functools import lru_cache
from io import BytesIO
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageCms

from stylesim.core.log_once import log_once

Colour: TypeAlias = Literal["srgb", "raw"]
"""`srgb` converts images with an embedded ICC profile to sRGB; `raw` keeps their values, as the published code does."""

MAX_PROFILE = 1 << 24
"""Largest profile in bytes that is used; those of printers have a few megabytes."""
SAME = 2
"""Largest difference from sRGB, in levels of 255, of a profile that is taken for sRGB."""

_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}


class _Conversion(NamedTuple):
    """What is done to the images of one profile."""

    mode: str
    """PIL mode of the values that the profile describes."""
    transform: ImageCms.ImageCmsTransform | None
    """To sRGB; None if the values are those of sRGB already."""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an image of mode L, RGB or CMYK to RGB by its ICC profile.

    The intent is relative colorimetric with black point compensation, so that white stays white. A profile that is
    damaged, or that describes other channels than the image has, is ignored, with one warning.

    Args:
        image: The stored values.
        profile: An ICC profile.
    """
    conversion = _conversion(profile)
    if isinstance(conversion, str):
        return _ignored(image, conversion)
    if conversion.mode == "RGB" and image.mode == "L":  # often so: a greyscale image saved with the profile of a screen
        image = image.convert("RGB")
    if conversion.mode != image.mode:
        return _ignored(image, f"it describes {conversion.mode} but the image is {image.mode}")
    if conversion.transform is None:
        return image.convert("RGB")
    converted = conversion.transform.apply(image)
    converted.info.pop("icc_profile", None)
    return converted


def is_srgb(profile: bytes) -> bool:
    """Return whether an ICC profile describes the colours of sRGB, so that nothing needs to be converted."""
    conversion = _conversion(profile)
    return not isinstance(conversion, str) and conversion.mode == "RGB" and conversion.transform is None


def _ignored(image: Image.Image, reason: str) -> Image.Image:
    log_once(
        logging.WARNING,
        f"An image has a colour profile that cannot be used ({reason}): its values are taken as sRGB, as in all images"
        " of this kind. This is said once.",
    )
    return image.convert("RGB")


@lru_cache(maxsize=32)
def _conversion(profile: bytes) -> _Conversion | str:
    """Return what to do with the images of a profile, or why it cannot be used."""
    if len(profile) > MAX_PROFILE:
        return f"it has more than {MAX_PROFILE:,} bytes"
    mode = _MODES.get(profile[16:20])
    if mode is None or profile[36:40] != b"acsp":
        return "it is damaged, or of a kind that is not supported"
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return _Conversion(mode, None if _changes_nothing(transform, mode) else transform)
    except Exception as error:  # PyCMSError, and others for a broken profile
        return str(error).strip() or type(error).__name__


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a profile is sRGB under whichever name, told by what it makes of a grid of colours."""
    if mode == "CMYK":
        return False
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    if mode == "L":
        colours = np.arange(256, dtype=np.uint8)[None]
    else:
        colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    image = Image.fromarray(colours)
    converted = np.asarray(transform.apply(image)).astype(int)
    return bool(np.abs(converted - np.asarray(image.convert("RGB")).astype(int)).max() <= SAME)
