"""Read the bytes of an image from its locator: a path, or a member of a tar."""

from __future__ import annotations

import re
import tarfile
import zlib
from functools import lru_cache
from pathlib import Path

from stylesim.core.errors import CorruptSampleError
from stylesim.core.file_names import find_file
from stylesim.curation.tar_members import TarMembers, read_range

_BY_NAME = re.compile(r"(.+?\.tar(?:\.gz)?)::(.*)", re.DOTALL | re.IGNORECASE)
_BY_OFFSET = re.compile(r"(.+?\.tar)::(\d+)\+(\d+)::.*", re.DOTALL | re.IGNORECASE)
_HERE = Path()
# Most callers read one tar after the other. A few tars stay open for those that do not.
_open_tar = lru_cache(maxsize=16)(TarMembers)


def read_image_bytes(locator: str) -> bytes:
    """Read an encoded image.

    Args:
        locator: A path, TAR::MEMBER, or TAR::OFFSET+SIZE::MEMBER (see `TarMembers.locator`), as `printable` writes it.

    Raises:
        CorruptSampleError: If the file, the tar or the member cannot be read.
    """
    by_offset, by_name = _BY_OFFSET.fullmatch(locator), _BY_NAME.fullmatch(locator)
    try:
        if by_offset:
            return read_range(find_file(_HERE, by_offset[1]), int(by_offset[2]), int(by_offset[3]))
        if by_name:
            return _open_tar(find_file(_HERE, by_name[1])).read(by_name[2])
        return find_file(_HERE, locator).read_bytes()
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise CorruptSampleError(f"{locator} cannot be read ({error or type(error).__name__}).") from error
