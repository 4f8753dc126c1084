"""Images are read from files and from tars, including damaged ones."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Literal

import pytest

from stylesim.core.errors import CorruptSampleError
from stylesim.curation.image_locator import read_image_bytes
from stylesim.curation.tar_members import TarMembers


def write_tar(path: Path, sizes: int, mode: Literal["w", "w:gz"] = "w") -> Path:
    """Write three members `n.jpg` that consist of `sizes` bytes n."""
    with tarfile.open(path, mode) as tar:
        for n in range(3):
            member = tarfile.TarInfo(f"{n}.jpg")
            member.size = sizes
            tar.addfile(member, io.BytesIO(bytes([n]) * sizes))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_images_are_read_from_files_and_tars(tmp_path: Path, mode: Literal["w", "w:gz"]):
    archive = write_tar(tmp_path / "00000.tar", 1000, mode)
    assert [read_image_bytes(f"{archive}::{n}.jpg")[0] for n in (2, 0, 1)] == [2, 0, 1]
    members = TarMembers(archive)
    assert [read_image_bytes(members.locator(f"{n}.jpg")) for n in (2, 0)] == [b"\x02" * 1000, b"\x00" * 1000]
    with pytest.raises(CorruptSampleError, match=r"3.jpg cannot be read"):
        read_image_bytes(f"{archive}::3.jpg")
    with pytest.raises(CorruptSampleError, match=r"nothing.jpg cannot be read"):
        read_image_bytes(str(tmp_path / "nothing.jpg"))


def test_a_truncated_tar_provides_the_members_before_the_end(tmp_path: Path):
    archive = write_tar(tmp_path / "00000.tar", 1024)
    with archive.open("r+b") as file:
        file.truncate(2 * 1536 + 512 + 100)
    assert read_image_bytes(f"{archive}::1.jpg") == b"\x01" * 1024
    with pytest.raises(CorruptSampleError, match="ends inside it"):
        read_image_bytes(f"{archive}::2.jpg")
    assert not TarMembers(archive).complete
