"""Open images of any format as 8 bit RGB, upright, in sRGB, on white. Every image of the project is opened here."""

from stylesim.core.images.colour import Colour
from stylesim.core.images.formats import EXTENSIONS, FORMATS, PLUGIN_EXTENSIONS
from stylesim.core.images.opening import MAX_PIXELS, ImageLike, decode_rgb, image_size, jpeg_size, open_image

__all__ = [
    "EXTENSIONS",
    "FORMATS",
    "MAX_PIXELS",
    "PLUGIN_EXTENSIONS",
    "Colour",
    "ImageLike",
    "decode_rgb",
    "image_size",
    "jpeg_size",
    "open_image",
]
