"""Packing a folder or a table of images into shards."""

from __future__ import annotations

import hashlib
import io
import json
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

from stylesim.core.errors import StylesimError
from stylesim.core.images import open_image
from stylesim.core.progress import progress
from stylesim.data.datasets.folder import find_samples
from stylesim.data.sample import Sample
from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_writer import ShardWriter
from stylesim.data.shards.tar_reader import EXTENSIONS

PLAN = "pack.json"
"""What the shards of an unfinished folder are made of; gone when all is packed."""
DAMAGED = "damaged-"
"""Before the number of a shard: the images that it had to leave out; gone when all is packed."""


def pack(source: str | Path, out: str | Path, **options: Any) -> list[tuple[str, str]]:
    """Pack the images that `find_samples` finds in `source` into shards in `out` (see `pack_samples`)."""
    return pack_samples(find_samples(source), out, **options)


def read_file(path: str) -> bytes:
    """Raises `StylesimError` where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StylesimError(f"{path} cannot be read: {error.strerror or error}") from error


def pack_samples(
    items: Sequence[Sample],
    out: str | Path,
    *,
    shard_size: int = 5000,
    max_size: int | None = None,
    tags: Sequence[str] = ("*",),
    suffix: str = ".tar",
    processes: int | None = None,
    show: bool = True,
    read: Callable[[str], bytes] = read_file,
) -> list[tuple[str, str]]:
    """Pack images into indexed shards in `out`; `read` fetches the bytes of an `Sample.image`, in other processes.

    The images are shuffled (always alike), `shard_size` of them to a shard. A file goes in as it is, unless
    its short side is over `max_size` px (then it is scaled down, as JPEG of quality 95) or its format is
    none of a shard's (then it becomes PNG). Tags that no glob of `tags` matches are left out.

    Interrupted and called again, it goes on with the shards that are not done. Returns (id, reason) of the
    images that were left out as damaged. Raises `StylesimError` if `out` holds anything else, or no image
    can be packed.
    """
    items, out = sorted(items, key=lambda item: hashlib.sha1(item.id.encode()).digest()), Path(out)
    plan = {
        "images": _digest(items),
        "size": shard_size,
        "max_size": max_size,
        "tags": [*tags],
        "suffix": suffix,
    }
    _enter(out, plan)
    pieces = {
        number: items[first : first + shard_size] for number, first in enumerate(range(0, len(items), shard_size))
    }
    todo = {number: piece for number, piece in pieces.items() if not (out / f"{number:05d}{suffix}").exists()}
    job = partial(_pack_shard, out=out, size=shard_size, max_size=max_size, tags=tags, suffix=suffix, read=read)
    with progress("packing", len(items), show=show) as advance:
        advance(len(items) - sum(map(len, todo.values())))
        for number in _all(job, todo, processes):
            advance(len(todo[number]))
    notes = sorted(out.glob(f"{DAMAGED}*"))
    damaged = [(name, reason) for note in notes for name, reason in json.loads(note.read_text())]
    if len(damaged) == len(items):
        first = f"; first {': '.join(damaged[0])}" if damaged else ""
        raise StylesimError(f"none of the {len(items)} images for {out} can be packed{first}")
    index_shards(out, show=show)
    for note in (*notes, out / PLAN):
        note.unlink()
    return damaged


def _digest(items: Sequence[Sample]) -> str:
    text = json.dumps([(item.id, item.tags, item.content) for item in items])
    return hashlib.sha256(text.encode()).hexdigest()


def _enter(out: Path, plan: dict) -> None:
    """Begin with this plan, or go on where `out` holds the beginning of this very one."""
    out.mkdir(parents=True, exist_ok=True)
    if not any(out.iterdir()):
        (out / PLAN).write_text(json.dumps(plan))
    try:
        begun = json.loads((out / PLAN).read_text())
    except (OSError, ValueError):
        begun = {}
    if begun != plan:
        raise StylesimError(f"{out} holds something else already: give an empty folder, or a new one")


def _all(job: partial, pieces: dict[int, list[Sample]], processes: int | None) -> Iterator[int]:
    """The numbers of the pieces, each when it is done."""
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
    items: Sequence[Sample],
    *,
    out: Path,
    size: int,
    max_size: int | None,
    tags: Sequence[str],
    suffix: str,
    read: Callable[[str], bytes],
) -> None:
    """Write one shard, and before it gets its name a note of the images that are damaged: (id, reason)."""
    damaged = []
    with ShardWriter(out, size=size, suffix=suffix, first=number) as writer:
        for place, item in enumerate(items, number * size):
            try:
                image, extension = _encoded(read(str(item.image)), Path(str(item.image)).suffix, max_size)
            except (StylesimError, OSError, MemoryError) as error:  # a strip scaled down may be too long for a JPEG
                damaged.append((item.id, str(error) or type(error).__name__))
                continue
            chosen = [tag for tag in item.tags if any(fnmatchcase(tag, glob) for glob in tags)]
            labels = {"tags": chosen, "name": item.id} | ({"content": item.content} if item.content else {})
            # A key must be one of a kind and free of dots; the name stays readable in it.
            key = f"{place:09d}_{re.sub(r'[^0-9A-Za-z_-]+', '-', Path(item.id).stem)[:60]}"
            writer.write(key, image, labels, extension=extension)
        if damaged:
            note = out / f".{number:05d}.part"
            note.write_text(json.dumps(damaged))
            note.replace(out / f"{DAMAGED}{number:05d}.json")


def _encoded(data: bytes, suffix: str, max_size: int | None) -> tuple[bytes, str]:
    """Bytes and extension with which an image goes into a shard; it is decoded once, to be sure of it."""
    image = open_image(data)
    extension = suffix.lower().removeprefix(".")
    if max_size and min(image.size) > max_size:
        scale = max_size / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        return _bytes(image, "JPEG", quality=95), "jpg"
    return (data, extension) if extension in EXTENSIONS else (_bytes(image, "PNG"), "png")


def _bytes(image: Image.Image, kind: str, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
