"""Read the bytes of an image from its locator: a path, or a member of a tar."""

from __future__ import annotations

import re
import tarfile
import zlib
from functools import lru_cache
from pathlib import Path

from stylesim.core.errors import CorruptSampleError
from stylesim.curation.tar_members import TarMembers, read_range

_BY_NAME = re.compile(r"(.+?\.tar(?:\.gz)?)::(.*)", re.DOTALL)
_BY_OFFSET = re.compile(r"(.+?\.tar)::(\d+)\+(\d+)::.*", re.DOTALL)
# Most callers read one tar after the other. A few tars stay open for those that do not.
_open_tar = lru_cache(maxsize=16)(TarMembers)


def read_image_bytes(locator: str) -> bytes:
    """Read an encoded image.

    Args:
        locator: A path, TAR::MEMBER, or TAR::OFFSET+SIZE::MEMBER (see `TarMembers.locator`).

    Raises:
        CorruptSampleError: If the file, the tar or the member cannot be read.
    """
    by_offset, by_name = _BY_OFFSET.fullmatch(locator), _BY_NAME.fullmatch(locator)
    try:
        if by_offset:
            return read_range(by_offset[1], int(by_offset[2]), int(by_offset[3]))
        return _open_tar(by_name[1]).read(by_name[2]) if by_name else Path(locator).read_bytes()
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise CorruptSampleError(f"{locator} cannot be read ({error or type(error).__name__}).") from error
