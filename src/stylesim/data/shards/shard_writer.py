"""Write samples into shards, as WebDataset reads them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from stylesim.core.errors import DataError
from stylesim.core.files import atomic_path
from stylesim.data.shards.tar_reader import IMAGE_EXTENSIONS


class ShardWriter:
    """Write samples into shards `<prefix>00000.tar`, ...; the same samples give the same bytes.

    A shard is closed after `size` samples, and gets its name only when it is complete.

    Args:
        folder: The folder for the shards, which is created if necessary.
        size: Number of samples per shard.
        prefix: Prefix of the file names.
        suffix: `.tar` or `.tar.gz`.
        first: Number of the first shard.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        size: int = 10_000,
        prefix: str = "",
        suffix: str = ".tar",
        first: int = 0,
    ):
        self.folder, self.size, self.prefix, self.suffix = Path(folder), size, prefix, suffix
        self.number, self.count = first, 0
        self._stack = ExitStack()
        self._tar: tarfile.TarFile | None = None
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> Path:
        """The shard that is being written, or else the next one."""
        return self.folder / f"{self.prefix}{self.number:05d}{self.suffix}"

    def write(self, key: str, image: bytes, labels: dict, *, extension: str = "jpg") -> None:
        """Add one encoded image with its labels.

        Args:
            key: Names the members of the sample; WebDataset takes what follows a dot in it for an extension.
            image: The bytes of an image file.
            labels: Content of the `.json` of the sample: `tags`, a list of strings, `content`, and anything else.
            extension: Extension of the image file, without a dot.

        Raises:
            DataError: If WebDataset would not read the key back as it is, or shards hold no images of this extension.
        """
        if not key or "." in key or key.startswith(("/", "__")):
            raise DataError(f"The key of a sample must have no dot and not begin with / or __, got {key!r}.")
        if extension not in IMAGE_EXTENSIONS:
            raise DataError(f"The image of a sample must be one of {', '.join(IMAGE_EXTENSIONS)}, got .{extension}.")
        tar = self._tar or self._open()
        self._add(tar, f"{key}.{extension}", image)
        self._add(tar, f"{key}.json", json.dumps(labels, ensure_ascii=False, sort_keys=True).encode())
        self.count += 1
        if self.count == self.size:
            self.close()

    def close(self) -> None:
        """Finish the shard that is being written, if there is one."""
        if self._tar is not None:
            self._stack.close()
            self._tar, self.number, self.count = None, self.number + 1, 0

    def _open(self) -> tarfile.TarFile:
        file = self._stack.enter_context(self._stack.enter_context(atomic_path(self.path)).open("wb"))
        if self.suffix.endswith(".gz"):
            # With a name or a time in the header, the same samples would give other bytes.
            file = self._stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
        self._tar = self._stack.enter_context(tarfile.TarFile(fileobj=file, mode="w"))
        return self._tar

    @staticmethod
    def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o644
        tar.addfile(member, io.BytesIO(data))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:  # the shard that is being written is removed
            self._stack.__exit__(kind, error, trace)
