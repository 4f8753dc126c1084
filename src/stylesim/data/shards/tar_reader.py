"""Read the samples of one shard, even if it is damaged."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, NamedTuple, Self

from stylesim.core.errors import CorruptSampleError
from stylesim.core.file_names import printable
from stylesim.core.images import EXTENSIONS
from stylesim.data.labels import clean_label, clean_labels
from stylesim.data.roots import open_url
from stylesim.data.sample import Sample

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
MAX_MEMBER = 1 << 28
"""Largest member in bytes; a larger one is skipped unread, since no image or label file of a shard is that big."""
MAX_HEADER = 1 << 20
"""Largest extended header in bytes; it holds names and times, and is read at once."""
MIN_GAP = 8
"""If more unwanted samples than this lie between two wanted ones, the reader seeks; fewer are read and dropped."""


def read_positions(url: str, name: str, positions: Sequence[int], offsets: Sequence[int] = ()) -> Iterator[Sample]:
    """Yield the samples at some positions of a shard: exactly one for each position.

    A sample that cannot be read has a `problem`. Where offsets are known, only the damaged samples are lost, and those
    between the wanted ones are not even read; otherwise everything after the first damage is lost.

    Args:
        url: What `open_url` opens.
        name: `<root>/<name of the shard>`, the first part of the ids.
        positions: Ascending positions in the shard, from 0.
        offsets: Byte offsets at which the first samples of the shard begin, for a plain tar on a local disk.
    """
    done, problem = 0, ""
    try:
        with open_url(url) as stream:
            while done < len(positions):
                start, end = done, _end_of_run(positions, done, len(offsets))
                reached = min(positions[start], len(offsets) - 1) if len(offsets) else 0
                try:
                    if len(offsets):
                        stream.seek(offsets[reached])
                    wanted = set(positions[start:end])
                    samples = islice(group_members(stream), positions[end - 1] + 1 - reached)
                    for position, members in enumerate(samples, reached):
                        reached = position + 1
                        if position in wanted:
                            done += 1
                            yield as_sample(members, name)
                    problem = f"the shard ends before sample {reached}: it is not the one that was indexed"
                except Exception as error:  # tarfile, zlib and pipes raise errors of many kinds for a damaged shard
                    problem = f"the shard cannot be read at sample {reached} ({_first_line(error)})"
                if done == start:  # not even the first sample of the run
                    done += 1
                    yield Sample(name, None, source=name, problem=problem)
                if done < end and positions[done] >= len(offsets):
                    break
    except Exception as error:
        problem = f"the shard cannot be opened ({_first_line(error)})"
    for _ in range(done, len(positions)):
        yield Sample(name, None, source=name, problem=problem)


def _end_of_run(positions: Sequence[int], start: int, known: int) -> int:
    """Return the end of the run that begins at `positions[start]` and is read without seeking.

    Another run begins after a gap, if its first position is among the first `known` of the shard.
    """
    for i in range(start + 1, len(positions)):
        if positions[i] < known and positions[i] - positions[i - 1] > MIN_GAP:
            return i
    return len(positions)


def group_members(stream: BinaryIO) -> Iterator[Members]:
    """Yield the samples of a tar: members that follow each other and have the same key, as WebDataset groups them."""
    group: Members | None = None
    for member, content in _members(stream):
        parts = _NAME.match(member.name)
        if not parts:  # a name without a suffix, or hidden
            continue
        key, suffix = parts[1], parts[2].lower()
        if group is None or group.key != key:
            if group is not None:
                yield group
            group = Members(key, member.offset, {}, {}, [])
        group.add(suffix, content)
    if group is not None:
        yield group


_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)$")
"""WebDataset's division of a name into key and suffix, at the first dot of the file name."""


@dataclass
class Members:
    """The members of one sample."""

    key: str
    start: int | None
    """Byte offset at which the first member begins; None if it depends on a header somewhere before it."""
    files: dict[str, bytes]
    """Contents by suffix, in lower case and without the dot."""
    unread: dict[str, str]
    """Suffixes of members without a content, and why they have none."""
    repeated: list[str]
    """Suffixes that occur again with different content."""

    def add(self, suffix: str, content: bytes | str) -> None:
        """Add one member: its content, or as text the reason why it has none."""
        if isinstance(content, str):
            self.unread.setdefault(suffix, content)
        elif self.files.setdefault(suffix, content) != content:
            self.repeated.append(suffix)


class SafeHeader(tarfile.TarInfo):
    """A header that raises an error where tarfile would stop silently, loop for ever or fill the memory.

    After the first member, tarfile takes anything that is not a header, even nothing, for the end of the archive. Here
    a header must be followed by another header or by the end mark.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse a header, and refuse a size that is negative, or too large for an extended header."""
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _EXTENSIONS and header.size > MAX_HEADER):
            raise _HeaderError(f"a header claims {header.size:,} bytes")
        return header

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        """Read the next header, and raise a ReadError if neither a header nor the end mark follows."""
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # pyright: ignore[reportAttributeAccessIssue]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}, and no end mark") from error


_EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENSIONS += (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_HeaderError: type[tarfile.HeaderError] = tarfile.InvalidHeaderError  # pyright: ignore[reportAttributeAccessIssue]


class _Member(NamedTuple):
    name: str
    offset: int | None


def _members(stream: BinaryIO) -> Iterator[tuple[_Member, bytes | str]]:
    """Yield the files and links of a tar, each with its content, or with the reason, as text, why it has none."""
    with tarfile.open(fileobj=stream, mode="r|*", bufsize=1 << 16, tarinfo=SafeHeader) as archive:
        for member in archive:
            if member.size < 0:  # stated by an extended header
                raise tarfile.ReadError(f"a header claims {member.size:,} bytes")
            if member.isreg() or member.islnk() or member.issym():
                offset = None if archive.pax_headers else member.offset
                yield _Member(printable(member.name), offset), _read(archive, member)
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # otherwise the list grows with the shard
            _skip_to(archive.offset, archive.fileobj)


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | str:
    if member.islnk() or member.issym():
        kind, option = ("hard", "--hard-dereference") if member.islnk() else ("symbolic", "--dereference")
        return (
            f"is a {kind} link to {printable(member.linkname)}, which cannot be followed in a stream: pack the shard"
            f" again with tar {option}"
        )
    if member.issparse():
        return "is stored as a sparse file: pack the shard again without tar --sparse"
    if member.size > MAX_MEMBER:
        return f"has {member.size:,} bytes, more than the {MAX_MEMBER:,} that are read"
    file = archive.extractfile(member)
    return file.read() if file else b""


def _skip_to(offset: int, stream: Any) -> None:
    """Read up to an offset. tarfile does not notice a stream that ends before the size that a header states."""
    while (gap := offset - stream.tell()) > 0:
        if not stream.read(min(gap, 1 << 20)):
            raise tarfile.ReadError("unexpected end of data")


def as_sample(members: Members, shard: str) -> Sample:
    """Check the members of one sample and parse its labels; the image stays encoded.

    Args:
        members: One item of `group_members`.
        shard: `<root>/<name of the shard>`, the first part of the id.
    """
    id = f"{shard}/{members.key}"
    try:
        image = _find_image(members)
        tags, content = _read_labels(members)
    except CorruptSampleError as error:
        return Sample(id, None, source=shard, problem=str(error))
    return Sample(id, image, tags, content, shard)


def _find_image(members: Members) -> bytes:
    """Return the image of a sample: the one with a plain suffix (`a.jpg`, not `a.depth.png`)."""
    suffixes = [*members.files, *members.unread]
    images = [suffix for suffix in suffixes if suffix.rpartition(".")[2] in IMAGE_EXTENSIONS]
    images = images or [suffix for suffix in suffixes if f".{suffix}" in EXTENSIONS]
    candidates = [suffix for suffix in images if "." not in suffix] or images
    if members.repeated:
        raise CorruptSampleError(
            f"several samples in a row have its key ({', '.join(f'.{suffix}' for suffix in members.repeated[:4])} came"
            " again), and WebDataset reads them as one: give each a key of its own, without a dot"
        )
    if len(candidates) > 1:
        raise CorruptSampleError(
            f"several images ({', '.join(f'.{suffix}' for suffix in candidates[:4])}): one of them must have a plain"
            " suffix (.jpg beside .depth.png), and a key no dot, since WebDataset ends it there"
        )
    if not candidates:
        raise CorruptSampleError(f"no image: none of its members ends in {', '.join(IMAGE_EXTENSIONS)}")
    [image] = candidates
    if image in members.unread:
        raise CorruptSampleError(f"its .{image} {members.unread[image]}")
    return members.files[image]


def _read_labels(members: Members) -> tuple[list[str], str | None]:
    if "json" in members.unread:
        raise CorruptSampleError(f"its .json {members.unread['json']}")
    if "json" not in members.files:
        dotted = next((suffix for suffix in members.files if suffix.endswith(".json")), None)
        if dotted is not None:
            raise CorruptSampleError(
                f"no labels: the name {members.key}.{dotted} has a dot, and WebDataset ends the key there"
            )
        raise CorruptSampleError("no labels: there is no .json beside the image")
    try:
        labels = json.loads(members.files["json"])
        tags, content = labels.get("tags") or [], labels.get("content")  # img2dataset writes no tags
    except (ValueError, AttributeError, RecursionError) as error:
        raise CorruptSampleError(f"its .json cannot be read ({_first_line(error)})") from error
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise CorruptSampleError(f"`tags` in its .json must be a list of strings, got {str(tags)[:60]}")
    return clean_labels(tags), None if content is None else clean_label(str(content))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
