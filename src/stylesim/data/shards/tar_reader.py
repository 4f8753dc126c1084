"""Reading the samples of one shard, whatever state it is in."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Self

from stylesim.data.roots import REMOTE, opened
from stylesim.data.sample import Sample
from stylesim.data.shards.offsets import sample_offsets

EXTENSIONS = ("jpg", "jpeg", "png", "webp")
MAX_MEMBER = 1 << 28  # bytes; a larger member is skipped unread: no image or label file of a shard is that big
GAP = 8  # samples that are rather read through than sought over


def read_shard(url: str, name: str, places: Sequence[int]) -> Iterator[Sample]:
    """The samples number `places` (ascending, from 0) of the shard behind `url`: exactly one slot for each.

    Keys get `name` in front. What cannot be read is a slot with a reason, to the last one of a truncated shard.
    What lies between is not looked at; in a plain tar on a local disk it is not even read.
    """
    given = seen = 0
    try:
        with opened(url) as stream:
            offsets = _offsets(url) if len(places) and places[-1] >= len(places) else []
            for run in _runs(places, len(offsets)):
                seen = min(run[0], max(len(offsets) - 1, 0))
                if seen:
                    stream.seek(offsets[seen])
                wanted = set(run)
                for number, sample in enumerate(islice(group(stream), run[-1] + 1 - seen), seen):
                    seen = number + 1
                    if number in wanted:
                        given += 1
                        yield as_sample(sample, name)
        reason = f"the shard ends after {seen} samples: it is not the one that was indexed"
    except Exception as error:  # a stranger's file: whatever it makes tarfile, zlib or a pipe say, the run goes on
        reason = f"the shard cannot be read beyond {seen} samples ({_sentence(error)})"
    for _ in range(given, len(places)):
        yield Sample(name, None, source=name, problem=reason)


def _offsets(url: str) -> list[int]:
    if url.startswith(REMOTE):
        return []
    stat = Path(url).stat()
    return sample_offsets(url, (stat.st_size, stat.st_mtime_ns), MAX_MEMBER)


def _runs(places: Sequence[int], known: int) -> Iterator[Sequence[int]]:
    """Places that are read at one go: neighbours, as far as it is `known` where they begin, and all of the others."""
    first = 0
    for i in range(1, len(places)):
        if places[i] < known and places[i] - places[i - 1] > GAP:
            yield places[first:i]
            first = i
    if len(places):
        yield places[first:]


def group(stream: BinaryIO) -> Iterator[dict]:
    """The samples of a tar as webdataset groups them: `__key__`, and each member's bytes by its extension."""
    from webdataset.tariterators import group_by_keys  # imports torch

    return group_by_keys(_members(stream), handler=lambda error: True)  # of two equal names the first counts


class _Header(tarfile.TarInfo):
    """A member that must be followed by another one or by the mark of the end.

    tarfile itself takes whatever else comes after the first member, or nothing, for the end.
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
    """Webdataset's own loop over members has no limit on their size."""
    with tarfile.open(fileobj=stream, mode="r|*", bufsize=1 << 16, tarinfo=_Header, errors="replace") as archive:
        for member in archive:
            if member.isreg() and member.size <= MAX_MEMBER:
                file = archive.extractfile(member)
                yield {"fname": member.name, "data": file.read() if file else b"", "__url__": ""}
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # or the list grows with the shard


def as_sample(members: dict, shard: str) -> Sample:
    """Check the members of one sample and parse its labels; the image stays encoded.

    Args:
        members: The bytes of each member by its extension, and the key as `__key__`.
        shard: `<root>/<name of the shard>`, the first part of the id.
    """
    id = f"{shard}/{members['__key__']}"

    def unreadable(problem: str) -> Sample:
        return Sample(id, None, source=shard, problem=problem)

    image = next((data for name, data in members.items() if name.rpartition(".")[2] in EXTENSIONS), None)
    if image is None:
        return unreadable(f"no image: none of its members ends in {', '.join(EXTENSIONS)}")
    if "json" not in members:
        return unreadable("no labels: there is no .json beside the image")
    try:
        labels = json.loads(members["json"])
        tags, content = labels.get("tags") or [], labels.get("content")  # img2dataset writes no tags
    except (ValueError, AttributeError, RecursionError) as error:
        return unreadable(f"its .json cannot be read ({_sentence(error)})")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        return unreadable(f"`tags` in its .json must be a list of strings, got {str(tags)[:60]}")
    return Sample(id, image, tags, None if content is None else str(content), shard)


def _sentence(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
