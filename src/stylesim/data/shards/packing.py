"""Pack a folder or a table of images into shards."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from fnmatch import fnmatchcase
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image

from stylesim.core.errors import CorruptSampleError, DataError
from stylesim.core.file_names import printable
from stylesim.core.files import write_text
from stylesim.core.images import Colour, open_image
from stylesim.core.progress import progress
from stylesim.data.datasets.folder import find_samples
from stylesim.data.sample import Sample
from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_writer import ShardWriter

PLAN = "pack.json"
"""The plan of an unfinished folder; removed when all is packed."""
_SIGNATURES = {"jpg": rb"\xff\xd8", "png": rb"\x89PNG\r\n\x1a\n", "webp": rb"RIFF....WEBP"}
"""How the files begin that are packed unchanged, by extension."""
DAMAGED = "damaged-"
"""Prefix of the files that list the images each shard had to leave out; removed when all is packed."""

logger = logging.getLogger(__name__)


def pack(source: str | Path, out: str | Path, **options: Any) -> list[tuple[str, str]]:
    """Pack the images that `find_samples` finds in `source` into shards in `out` (see `pack_samples`)."""
    return pack_samples(find_samples(source), out, **options)


def read_file(path: str) -> bytes:
    """Read an image file.

    Raises:
        CorruptSampleError: If it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CorruptSampleError(f"{printable(path)} cannot be read: {error.strerror or error}.") from error


def pack_samples(
    samples: Sequence[Sample],
    out: str | Path,
    *,
    shard_size: int = 5000,
    max_size: int | None = None,
    tags: Sequence[str] = ("*",),
    suffix: str = ".tar",
    colour: Colour = "srgb",
    accept_damaged: bool = False,
    processes: int | None = None,
    show: bool = True,
    read: Callable[[str], bytes] = read_file,
) -> list[tuple[str, str]]:
    """Pack images into indexed shards, in an order that is shuffled by their ids.

    A file is packed unchanged, with two exceptions: an image whose short side exceeds `max_size` is scaled down and
    becomes a JPEG of quality 95, and an image of a format that shards do not hold becomes a PNG, upright and on white.
    The format is detected from the content, not from the suffix. The next call with the same arguments continues an
    interrupted one.

    Args:
        samples: Images to pack.
        out: A new or empty folder, or the unfinished folder of an interrupted call.
        shard_size: Number of images per shard.
        max_size: Largest short side in px.
        tags: Globs; tags that match none of them are left out.
        suffix: `.tar` or `.tar.gz`.
        colour: What to do with the colour profile of an image that is not packed unchanged: `srgb` converts it, `raw`
            drops it. A file that is packed unchanged keeps its profile.
        accept_damaged: Pack what can be decoded of damaged JPEGs and PNGs, as PNG.
        processes: Number of processes; by default one for each core.
        show: Whether to show progress.
        read: Returns the bytes of a `Sample.image`, given as text; it runs in other processes.

    Returns:
        (id, reason) of the images that were left out because they are damaged.

    Raises:
        DataError: If `out` holds anything else, or no image can be packed.
    """
    samples = sorted(samples, key=lambda sample: hashlib.sha1(sample.id.encode()).digest())
    out = Path(out).expanduser()
    plan = {
        "images": _digest(samples),
        "size": shard_size,
        "max_size": max_size,
        "tags": [*tags],
        "suffix": suffix,
        "colour": colour,
        "accept_damaged": accept_damaged,
    }
    _begin_or_continue(out, plan)
    pieces = {
        number: samples[first : first + shard_size] for number, first in enumerate(range(0, len(samples), shard_size))
    }
    todo = {number: piece for number, piece in pieces.items() if not (out / f"{number:05d}{suffix}").exists()}
    encode = partial(_encode, max_size=max_size, colour=colour, accept_damaged=accept_damaged)
    job = partial(_pack_shard, out=out, size=shard_size, encode=encode, tags=tags, suffix=suffix, read=read)
    with progress("packing", len(samples), show=show) as advance:
        advance(len(samples) - sum(map(len, todo.values())))
        for number in _pack_all(job, todo, processes):
            advance(len(todo[number]))
    notes = sorted(out.glob(f"{DAMAGED}*"))
    damaged = [(name, reason) for note in notes for name, reason in json.loads(note.read_text())]
    if len(damaged) == len(samples):
        first = f"; the first is {': '.join(damaged[0])}" if damaged else ""
        raise DataError(f"None of the {len(samples)} images for {out} can be packed{first}.")
    index_shards(out, show=show)
    if not any(fnmatchcase(tag, glob) for sample in samples for tag in sample.tags for glob in tags):
        logger.warning(
            "No image in %s has a tag: labels are the sub-folders of a folder, or a column such as tags of a table%s.",
            out,
            "" if list(tags) == ["*"] else f", of which tags={', '.join(tags)} are kept",
        )
    for note in (*notes, out / PLAN):
        note.unlink()
    return damaged


def _digest(samples: Sequence[Sample]) -> str:
    text = json.dumps([(sample.id, sample.tags, sample.content) for sample in samples])
    return hashlib.sha256(text.encode()).hexdigest()


def _begin_or_continue(out: Path, plan: dict) -> None:
    """Write the plan into an empty folder, or check that the folder was begun with the same plan."""
    out.mkdir(parents=True, exist_ok=True)
    if not any(out.iterdir()):
        (out / PLAN).write_text(json.dumps(plan))
    try:
        begun = json.loads((out / PLAN).read_text())
    except (OSError, ValueError):
        begun = {}
    if begun != plan:
        raise DataError(f"{out} already holds something else: give an empty or a new folder.")
    for leftover in out.glob(".*.partial"):  # of a process that was killed
        leftover.unlink()


def _pack_all(job: partial, pieces: dict[int, list[Sample]], processes: int | None) -> Iterator[int]:
    """Yield the number of each piece when it is packed."""
    processes = processes or min(os.cpu_count() or 1, len(pieces))
    if processes <= 1:
        for number, piece in pieces.items():
            job(number, piece)
            yield number
        return
    pool = ProcessPoolExecutor(processes, get_context("forkserver"))
    try:
        tasks = {pool.submit(job, number, piece): number for number, piece in pieces.items()}
        for task in as_completed(tasks):
            task.result()
            yield tasks[task]
    finally:
        pool.shutdown(cancel_futures=True)


def _pack_shard(
    number: int,
    samples: Sequence[Sample],
    *,
    out: Path,
    size: int,
    encode: Callable[[bytes], tuple[bytes, str]],
    tags: Sequence[str],
    suffix: str,
    read: Callable[[str], bytes],
) -> None:
    """Write one shard and, before it gets its name, the list of images that it leaves out: (id, reason)."""
    damaged = []
    with ShardWriter(out, size=size, suffix=suffix, first=number) as writer:
        for position, sample in enumerate(samples, number * size):
            try:
                image, extension = encode(read(str(sample.image)))
            except (CorruptSampleError, OSError, MemoryError) as error:  # a long strip may exceed JPEG's size limit
                damaged.append((sample.id, str(error) or type(error).__name__))
                continue
            chosen = [tag for tag in sample.tags if any(fnmatchcase(tag, glob) for glob in tags)]
            labels = {"tags": chosen, "name": sample.id} | ({"content": sample.content} if sample.content else {})
            # A key is unique and has no dot; the name stays readable in it.
            key = f"{position:09d}_{re.sub(r'[^0-9A-Za-z_-]+', '-', Path(sample.id).stem)[:60]}"
            writer.write(key, image, labels, extension=extension)
        if damaged:
            write_text(out / f"{DAMAGED}{number:05d}.json", json.dumps(damaged))


def _encode(data: bytes, *, max_size: int | None, colour: Colour, accept_damaged: bool) -> tuple[bytes, str]:
    """Return the bytes and the extension with which an image is packed; it is decoded once to check it."""
    extension = next((name for name, start in _SIGNATURES.items() if re.match(start, data, re.DOTALL)), None)
    try:
        image = open_image(data, colour=colour)
    except CorruptSampleError:
        if not accept_damaged:
            raise
        image, extension = open_image(data, colour=colour, accept_damaged=True), None
    if max_size and min(image.size) > max_size:
        scale = max_size / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        return _save(image, "JPEG", quality=95), "jpg"
    return (data, extension) if extension else (_save(image, "PNG"), "png")


def _save(image: Image.Image, format: str, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()
