"""Turn images upright, as their EXIF or XMP metadata ask for."""

from __future__ import annotations

import re

from PIL import Image

UPRIGHT = {  # EXIF orientation -> what turns the stored image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = {UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}
"""The turns that exchange height and width."""

_TAG = 0x0112
_XMP = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\b""")


def turn_of_metadata(exif: bytes | None, xmp: bytes | None) -> Image.Transpose | None:
    r"""Return what turns an image upright; None if it is upright.

    Args:
        exif: An EXIF block, with or without `Exif\0\0` before it. If it states an orientation, this one counts.
        xmp: An XMP packet.
    """
    if exif:
        try:
            block = Image.Exif()
            block.load(exif)
            orientation = block.get(_TAG)
        except Exception:  # PIL raises errors of many kinds; a broken block loses the rotation, not the image
            orientation = None
        if orientation is not None:
            return UPRIGHT.get(orientation)
    match = _XMP.search(xmp) if xmp else None
    return UPRIGHT.get(int(match[1])) if match else None


def turn_of_image(image: Image.Image) -> Image.Transpose | None:
    """Return what turns a loaded PIL image upright; None if it is upright.

    The image must be loaded, because PIL turns a TIFF, and removes the tag, when it loads its pixels.
    """
    try:
        orientation = image.getexif().get(_TAG)
    except Exception:
        orientation = None
    if orientation is not None:
        return UPRIGHT.get(orientation)
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return turn_of_metadata(None, xmp.encode() if isinstance(xmp, str) else xmp)
