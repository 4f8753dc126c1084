"""Samples of a tar at any positions, in whatever state the tar is."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylesim.data.sample import Sample
from stylesim.data.shards import indexing, tar_reader
from stylesim.data.shards.shard_index import Shard
from stylesim.data.shards.tar_reader import read_positions

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


def write_kinds(folder: Path) -> dict[str, Path]:
    odd = samples()
    odd[10:10] = [
        member("folder", type=tarfile.DIRTYPE),
        member("no-extension", b"1234"),
        member("link.jpg", type=tarfile.SYMTYPE),
    ]
    odd[30:30] = [odd[12], odd[13]]  # the same names again
    return {
        "plain": written(folder / "plain.tar", samples()),
        "times of pax": written(folder / "pax.tar", samples(mtime=1.5), tarfile.PAX_FORMAT),
        "names of pax": written(folder / "names.tar", samples(lambda i: f"é{i}" + "n" * 120), tarfile.PAX_FORMAT),
        "long names of gnu": written(
            folder / "gnu.tar", samples(lambda i: f"{i}" + "n" * (120 if i == 9 else 3)), tarfile.GNU_FORMAT
        ),
        "prefixes of ustar": written(folder / "prefix.tar", samples(lambda i: "a" * 90 + f"/{'b' * 60}{i:03d}")),
        "odd members": written(folder / "odd.tar", odd),
    }


def offsets_of(path: Path) -> list[int]:
    """The offsets that an index of this shard holds."""
    entry = indexing._examine(path)
    return Shard(path.name, 0, 0, "", entry.get("starts", "")).offsets().tolist()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[int]]]:
    """Shards of every kind with the offsets of their index; some were damaged after they had been indexed."""
    folder = tmp_path_factory.mktemp("kinds")
    found = {kind: (path, offsets_of(path)) for kind, path in write_kinds(folder).items()}
    whole, offsets = found["plain"][0].read_bytes(), found["plain"][1]
    middle = offsets[17]
    damaged = {
        "cut": whole[: middle + 700],
        "broken": whole[:middle] + b"\xff" * 600 + whole[middle + 600 :],
        "zeroed": whole[:middle] + bytes(1024) + whole[middle + 1024 :],
        "empty": b"",
    }
    for kind, content in damaged.items():
        (folder / f"{kind}.tar").write_bytes(content)
        found[kind] = folder / f"{kind}.tar", offsets
    return found


KINDS = ["plain", "times of pax", "names of pax", "long names of gnu", "prefixes of ustar", "odd members"]


@pytest.mark.parametrize("kind", [*KINDS, "cut", "broken", "zeroed", "empty"])
def test_any_positions_give_the_samples_that_reading_the_shard_through_gives(kind: str, shards: dict[str, Any]) -> None:
    path, offsets = shards[kind]
    through = list(read_positions(str(path), "s", range(SAMPLES + 3)))
    whole = list(read_positions(str(path), "s", range(SAMPLES + 3), offsets))
    assert len(whole) == SAMPLES + 3
    assert all(known == sample for known, sample in zip(through, whole, strict=True) if known.problem is None)

    @settings(max_examples=25)
    @given(st.sets(st.integers(0, SAMPLES + 2)).map(sorted))
    def check(positions: list[int]) -> None:
        for known, expected in ((offsets, whole), ((), through)):
            found = list(read_positions(str(path), "s", positions, known))
            # Where a shard ends too soon is said as far as it has been read.
            assert [sample[:5] for sample in found] == [expected[position][:5] for position in positions]

    check()


@pytest.mark.parametrize("kind", ["broken", "zeroed"])
def test_behind_a_damaged_place_the_offsets_find_the_next_sample(kind: str, shards: dict[str, Any]) -> None:
    path, offsets = shards[kind]

    def damaged(samples: Iterator[Sample]) -> list[int]:
        return [position for position, sample in enumerate(samples) if sample.problem]

    assert damaged(read_positions(str(path), "s", range(SAMPLES), offsets)) in ([16, 17], [17])
    assert damaged(read_positions(str(path), "s", range(SAMPLES))) in ([*range(16, 30)], [*range(17, 30)])


def test_the_index_holds_the_offsets_at_which_tarfile_finds_the_samples(shards: dict[str, Any]) -> None:
    for kind in ("plain", "times of pax", "long names of gnu", "prefixes of ustar"):
        path, offsets = shards[kind]
        with tarfile.open(path) as tar:
            assert offsets == [info.offset for info in tar if info.name.endswith(".jpg")]


def test_the_index_holds_no_offsets_of_compressed_shards_or_behind_global_headers(tmp_path: Path) -> None:
    plain = written(tmp_path / "plain.tar", samples())
    (tmp_path / "zipped.tar").write_bytes(gzip.compress(plain.read_bytes()))
    assert offsets_of(tmp_path / "zipped.tar") == []
    with tarfile.open(tmp_path / "global.tar", "w", pax_headers={"comment": "for every member"}) as tar:
        for info, data in samples():
            tar.addfile(info, io.BytesIO(data))
    assert offsets_of(tmp_path / "global.tar") == []
    for name in ("zipped.tar", "global.tar"):
        assert [s.tags for s in read_positions(str(tmp_path / name), "s", [3, 20])] == [["3"], ["20"]]


@pytest.mark.parametrize("kind", ["plain", "times of pax", "prefixes of ustar"])
def test_samples_between_the_wanted_ones_are_not_read(
    kind: str, shards: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def counted(stream: Any) -> Iterator[dict]:
        for members in group_members(stream):
            read.append(members["__key__"])
            yield members

    group_members = tar_reader.group_members
    monkeypatch.setattr(tar_reader, "group_members", counted)
    path, offsets = shards[kind]
    assert [sample.tags for sample in read_positions(str(path), "s", [3, 20, 29], offsets)] == [["3"], ["20"], ["29"]]
    assert len(read) == 3
