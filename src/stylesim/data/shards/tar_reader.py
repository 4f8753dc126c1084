"""Read the samples of one shard, whatever its state."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import BinaryIO, Self

from stylesim.data.roots import open_url
from stylesim.data.sample import Sample

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
MAX_MEMBER = 1 << 28
"""Largest member in bytes; a larger one is skipped unread, since no image or label file of a shard is that big."""
MIN_GAP = 8
"""Unwanted samples between two wanted ones above which seeking is used; fewer are read through."""


def read_positions(url: str, name: str, positions: Sequence[int], offsets: Sequence[int] = ()) -> Iterator[Sample]:
    """Yield the samples at some positions of a shard: exactly one for each position.

    A sample that cannot be read has a `problem`. Where offsets are known, only the damaged samples are lost, and those
    between the wanted ones are not even read; elsewhere everything behind the first damaged place is lost.

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
                if done == start:  # not even the sample that was sought
                    done += 1
                    yield Sample(name, None, source=name, problem=problem)
                if done < end and positions[done] >= len(offsets):
                    break
    except Exception as error:
        problem = f"the shard cannot be opened ({_first_line(error)})"
    for _ in range(done, len(positions)):
        yield Sample(name, None, source=name, problem=problem)


def _end_of_run(positions: Sequence[int], start: int, known: int) -> int:
    """Return where the positions end that are read from `positions[start]` on without seeking.

    Another run begins at a position among the first `known`, behind a gap.
    """
    for i in range(start + 1, len(positions)):
        if positions[i] < known and positions[i] - positions[i - 1] > MIN_GAP:
            return i
    return len(positions)


def group_members(stream: BinaryIO) -> Iterator[dict]:
    """Yield the samples of a tar as WebDataset groups its members.

    Each is a dict of the members' bytes by their extension, with the key as `__key__` and the byte offset at which the
    first member begins as `__url__` (None if the member depends on a header somewhere before it).
    """
    from webdataset.tariterators import group_by_keys  # imports torch

    return group_by_keys(_members(stream), handler=lambda error: True)  # of members with one name the first is taken


class _StrictHeader(tarfile.TarInfo):
    """A header that must be followed by another one or by the end mark.

    tarfile itself takes anything else behind the first member, also nothing, for the end.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # pyright: ignore[reportAttributeAccessIssue]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}, and no end mark") from error


def _members(stream: BinaryIO) -> Iterator[dict]:
    """Yield the regular members as `group_by_keys` takes them; WebDataset's own loop does not limit their size."""
    with tarfile.open(fileobj=stream, mode="r|*", bufsize=1 << 16, tarinfo=_StrictHeader, errors="replace") as archive:
        for member in archive:
            if member.isreg() and member.size <= MAX_MEMBER:
                file = archive.extractfile(member)
                offset = None if archive.pax_headers else member.offset
                yield {"fname": member.name, "data": file.read() if file else b"", "__url__": offset}
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # or the list grows with the shard


def as_sample(members: dict, shard: str) -> Sample:
    """Check the members of one sample and parse its labels; the image stays encoded.

    Args:
        members: One item of `group_members`.
        shard: `<root>/<name of the shard>`, the first part of the id.
    """
    id = f"{shard}/{members['__key__']}"

    def unreadable(problem: str) -> Sample:
        return Sample(id, None, source=shard, problem=problem)

    image = next((data for name, data in members.items() if name.rpartition(".")[2] in IMAGE_EXTENSIONS), None)
    if image is None:
        return unreadable(f"no image: none of its members ends in {', '.join(IMAGE_EXTENSIONS)}")
    if "json" not in members:
        return unreadable("no labels: there is no .json beside the image")
    try:
        labels = json.loads(members["json"])
        tags, content = labels.get("tags") or [], labels.get("content")  # img2dataset writes no tags
    except (ValueError, AttributeError, RecursionError) as error:
        return unreadable(f"its .json cannot be read ({_first_line(error)})")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        return unreadable(f"`tags` in its .json must be a list of strings, got {str(tags)[:60]}")
    return Sample(id, image, tags, None if content is None else str(content), shard)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
