"""Samples of a tar that are sought are those that would be met by reading it through, whatever the tar is like."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylesim.data.shards import tar_reader as tars
from stylesim.data.shards.offsets import sample_offsets
from stylesim.data.shards.tar_reader import read_shard

SAMPLES = 30


def member(name: str, data: bytes = b"", **about: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in about.items():
        setattr(info, key, value)
    return info, data


def samples(name: Callable[[int], str] = "{:05d}".format, **about: Any) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [
        one
        for i in range(SAMPLES)
        for one in (
            member(f"{name(i)}.jpg", b"%03d" % i * (100 + 40 * i), **about),
            member(f"{name(i)}.json", json.dumps({"tags": [str(i)]}).encode(), **about),
        )
    ]


def written(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], format: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def kinds(folder: Path) -> dict[str, Path]:
    plain = written(folder / "plain.tar", samples())
    whole, middle = plain.read_bytes(), sample_offsets(str(plain), (0, 0), 1 << 20)[17]
    (folder / "cut.tar").write_bytes(whole[: middle + 700])
    (folder / "broken.tar").write_bytes(whole[:middle] + b"\xff" * 600 + whole[middle + 600 :])
    (folder / "zeroed.tar").write_bytes(whole[:middle] + bytes(1024) + whole[middle + 1024 :])
    (folder / "empty.tar").write_bytes(b"")
    odd = samples()
    odd[10:10] = [
        member("folder", type=tarfile.DIRTYPE),
        member("no-extension", b"1234"),
        member("link.jpg", type=tarfile.SYMTYPE),
    ]
    odd[30:30] = [odd[12], odd[13]]  # the same names again
    return {
        "plain": plain,
        "times of pax": written(folder / "pax.tar", samples(mtime=1.5), tarfile.PAX_FORMAT),
        "names of pax": written(folder / "names.tar", samples(lambda i: f"é{i}" + "n" * 120), tarfile.PAX_FORMAT),
        "long names of gnu": written(
            folder / "gnu.tar", samples(lambda i: f"{i}" + "n" * (120 if i == 9 else 3)), tarfile.GNU_FORMAT
        ),
        "prefixes of ustar": written(folder / "prefix.tar", samples(lambda i: "a" * 90 + f"/{'b' * 60}{i:03d}")),
        "odd members": written(folder / "odd.tar", odd),
    } | {name: folder / f"{name}.tar" for name in ("cut", "broken", "zeroed", "empty")}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return kinds(tmp_path_factory.mktemp("offsets"))


KINDS = ["plain", "times of pax", "names of pax", "long names of gnu", "prefixes of ustar", "odd members"]


@pytest.mark.parametrize("kind", [*KINDS, "cut", "broken", "zeroed", "empty"])
def test_any_places_of_a_shard_give_the_samples_that_reading_it_through_gives(kind: str, shards: dict[str, Path]):
    path = shards[kind]
    whole = list(read_shard(f"pipe:cat {path}", "s", range(SAMPLES + 3)))

    @settings(max_examples=25)
    @given(st.sets(st.integers(0, SAMPLES + 2)).map(sorted))
    def check(places: list[int]) -> None:
        found = list(read_shard(str(path), "s", places))
        assert [sample[:3] for sample in found] == [whole[place][:3] for place in places]

    check()


def test_offsets_are_where_tarfile_finds_the_members(shards: dict[str, Path]):
    for kind in ("plain", "prefixes of ustar"):
        with tarfile.open(shards[kind]) as tar:
            exact = [info.offset for info in tar if info.name.endswith(".jpg")]
        assert sample_offsets(str(shards[kind]), (0, 0), 1 << 20) == exact


@pytest.mark.parametrize("kind", ["plain", "times of pax", "prefixes of ustar"])
def test_what_is_passed_over_is_not_read(kind: str, shards: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    passed = []

    def counted(stream: Any) -> Iterator[dict]:
        for sample in group(stream):
            passed.append(sample["__key__"])
            yield sample

    group = tars.group
    monkeypatch.setattr(tars, "group", counted)
    assert [sample.tags for sample in read_shard(str(shards[kind]), "s", [3, 20, 29])] == [["3"], ["20"], ["29"]]
    assert len(passed) == 3
