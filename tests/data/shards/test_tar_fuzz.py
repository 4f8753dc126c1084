"""Thousands of mutated tars: the shard reader neither crashes nor hangs, and accounts for every sample."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from stylesim.curation.tar_members import TarMembers
from stylesim.data.shards import indexing
from stylesim.data.shards.shard_index import Shard
from stylesim.data.shards.tar_reader import read_positions

SAMPLES = 6
SECONDS = 20
"""Far more than any of these tars takes; a reader that loops takes for ever."""

NAMES = (
    "a.jpg",
    ".jpg",
    "./a.jpg",
    "../../a.jpg",
    "/etc/a.jpg",
    "a",
    "a.",
    "a.b.c.jpg",
    "\udce9.jpg",
    "é" * 60 + ".jpg",
)
NAMES += (
    "a\n.jpg",
    "a.JPG",
    "__a.jpg",
    "a.__key__",
    "a/b.c/d.jpg",
    "._a.jpg",
    "a.json",
    "\u202e.jpg",
    "x" * 300 + ".json",
)
TYPES = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE)
TYPES += (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"Z", b"\0")
SIZES = (0, 1, 511, 513, 1 << 20, 1 << 33, 1 << 60, (1 << 88) - 1, -1, -512, -(1 << 62))
PAX = ({"size": "-1"}, {"size": "9" * 30}, {"size": "x"}, {"path": "a\0b.jpg"}, {"path": ""}, {"mtime": "nan"})
PAX += ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, {"GNU.sparse.map": "0,-5,9,9"}, {"hdrcharset": "BINARY"})


def member(name: str, data: bytes, rng: random.Random, odd: bool) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    if odd:
        info.name = rng.choice(NAMES)
        info.type = rng.choice((tarfile.REGTYPE, *TYPES))
        info.linkname = rng.choice(("", "a.jpg", "../x", info.name))
        info.pax_headers = dict(rng.choice(({}, {}, *PAX)))
    info.size = len(data)
    return info, data


def make_tar(rng: random.Random) -> bytes:
    """Return a tar of a few samples in any of the formats, some with odd members."""
    format = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    share = rng.choice((0, 0, 0.2))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for number in range(SAMPLES):
            for end, data in (("jpg", rng.randbytes(rng.randrange(900))), ("json", b'{"tags": ["x"]}')):
                key = number - (rng.random() < 0.05)  # some keys come twice in a row
                info, content = member(f"{key:03d}.{end}", data, rng, rng.random() < share)
                try:
                    tar.addfile(info, io.BytesIO(content))
                except (ValueError, UnicodeError):  # this format cannot hold the name
                    continue
    return out.getvalue()


def flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 10, 100))):
        data[rng.randrange(len(data))] = rng.randrange(256)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def remove(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 30, 512, 1024))]


def repeat(data: bytearray, rng: random.Random) -> None:
    start, length = rng.randrange(len(data)) // 512 * 512, 512 * rng.randrange(1, 5)
    data[start:start] = data[start : start + length]


def zero(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data)) // 512 * 512
    data[start : start + 1024] = bytes(len(data[start : start + 1024]))


def lie(data: bytearray, rng: random.Random) -> None:
    """Change the size or the type in a header, with a checksum that fits."""
    headers = [start for start in range(0, len(data) - 511, 512) if data[start + 257 : start + 262] == b"ustar"]
    if not headers:
        return
    start = rng.choice(headers)
    if rng.random() < 0.7:
        size = rng.choice(SIZES)
        data[start + 124 : start + 136] = bytes([0x80 if size >= 0 else 0xFF]) + size.to_bytes(
            11, "big", signed=size < 0
        )
    if rng.random() < 0.5:
        data[start + 156 : start + 157] = rng.choice(TYPES)
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, cut, remove, repeat, zero, lie, lie)


def mutated(seed: int) -> bytes:
    rng = random.Random(seed)
    data = bytearray(make_tar(rng))
    for _ in range(rng.randrange(4)):
        if data:
            rng.choice(MUTATIONS)(data, rng)
    if rng.random() < 0.2:
        data = bytearray(gzip.compress(data, 1))
        if data and rng.random() < 0.7:
            rng.choice((flip, cut, remove))(data, rng)
    return bytes(data)


def check(path: Path, rng: random.Random) -> None:
    """Read a shard in every way, and compare what is found."""
    entry = indexing._examine(path)
    json.dumps(entry, ensure_ascii=False).encode()  # every name and problem can be written
    count = entry["count"]
    offsets = Shard(path.name, 0, 0, "", entry.get("starts", "")).offsets().tolist()
    assert len(offsets) <= count
    whole = list(read_positions(str(path), "s", range(count)))
    assert len(whole) == count, "one sample for each that the index counts"
    assert all((sample.image is None) == (sample.problem is not None) for sample in whole)
    assert sum(entry["tags"].values()) == sum(len(sample.tags) for sample in whole)
    beyond = list(read_positions(str(path), "s", range(count + 3)))
    assert [sample[:5] for sample in beyond[:count]] == [sample[:5] for sample in whole]
    assert all(sample.problem for sample in beyond[count:])
    positions = sorted(rng.sample(range(count), rng.randint(0, count)))
    for known in ((), offsets):
        found = list(read_positions(str(path), "s", positions, known))
        assert [sample[:5] for sample in found] == [whole[position][:5] for position in positions]
    members = TarMembers(path)
    for name in members.names():
        name.encode()
        try:
            members.read(name)
        except (EOFError, OSError, zlib.error):
            continue


def run(seeds: range, folder: Path) -> None:
    for seed in seeds:
        path = folder / "0.tar"
        path.write_bytes(mutated(seed))
        errors: list[BaseException] = []

        def checked(path: Path = path, seed: int = seed, errors: list[BaseException] = errors) -> None:
            try:
                check(path, random.Random(seed))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=checked, daemon=True)
        thread.start()
        thread.join(SECONDS)
        assert not thread.is_alive(), f"seed {seed} hangs"
        assert not errors, f"seed {seed}: {errors[0]!r}"


def test_mutated_tars_are_read_or_refused(tmp_path: Path) -> None:
    run(range(300), tmp_path)


@pytest.mark.slow
def test_thousands_of_mutated_tars_are_read_or_refused(tmp_path: Path) -> None:
    run(range(300, 6000), tmp_path)
