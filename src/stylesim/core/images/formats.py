"""The image formats that are read: their names, their suffixes, and the packages that some of them need."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""The formats of PIL that are read without a plugin; none of them runs another program."""

_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)


class Plugin(NamedTuple):
    """A package that adds a format to PIL."""

    format: str
    """PIL's name of the format."""
    module: str
    package: str
    """What `pip install` takes."""


_HEIF = Plugin("HEIF", "pillow_heif", "pillow-heif")
_JXL = Plugin("JXL", "pillow_jxl", "pillow-jxl-plugin")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_JXL_STARTS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")

PLUGIN_EXTENSIONS = {".heic": _HEIF.package, ".heif": _HEIF.package, ".hif": _HEIF.package, ".jxl": _JXL.package}
"""Suffix -> the package that reads such files."""


def _is_installed(plugin: Plugin) -> bool:
    return find_spec(plugin.module) is not None


_INSTALLED = tuple(plugin.package for plugin in (_HEIF, _JXL) if _is_installed(plugin))
EXTENSIONS = (*_SUFFIXES, *(suffix for suffix, package in PLUGIN_EXTENSIONS.items() if package in _INSTALLED))
"""Suffixes, in lower case, of the files that are taken for images in a folder; the content then tells the format."""


def plugin_for(data: bytes) -> Plugin | None:
    """Return the plugin that the format of a file needs, as told by its first bytes; None for any other file."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and b"avif" not in data[12:64]:
        return _HEIF
    return _JXL if data.startswith(_JXL_STARTS) else None


@cache
def register(plugin: Plugin) -> bool:
    """Make PIL read the format of a plugin; return whether the plugin is installed."""
    if not _is_installed(plugin):
        return False
    module = import_module(plugin.module)
    if hasattr(module, "register_heif_opener"):
        module.register_heif_opener()
    return True
