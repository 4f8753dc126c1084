"""Samples of a tar at any positions, in whatever state the tar is."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylesim.curation.tar_members import TarMembers
from stylesim.data.sample import Sample
from stylesim.data.shards import indexing, tar_reader
from stylesim.data.shards.shard_index import Shard
from stylesim.data.shards.tar_reader import Members, read_positions

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

    def counted(stream: Any) -> Iterator[Members]:
        for members in group_members(stream):
            read.append(members.key)
            yield members

    group_members = tar_reader.group_members
    monkeypatch.setattr(tar_reader, "group_members", counted)
    path, offsets = shards[kind]
    assert [sample.tags for sample in read_positions(str(path), "s", [3, 20, 29], offsets)] == [["3"], ["20"], ["29"]]
    assert len(read) == 3


def read_one(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> list[Sample]:
    """Return the samples of a shard of these members, as many as its index counts."""
    written(path, list(members))
    return list(read_positions(str(path), "s", range(indexing._examine(path)["count"])))


LABELS = member("a.json", b'{"tags": ["x"]}')


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (("a.depth.png", "a.jpg"), b"a.jpg"),
        (("a.jpg", "a.mask.png", "a.seg.png"), b"a.jpg"),
        (("a.thumb.jpg",), b"a.thumb.jpg"),
        (("a.JPG",), b"a.JPG"),
        (("a.tif",), b"a.tif"),
        (("a.tif", "a.png"), b"a.png"),
    ],
)
def test_the_image_is_the_member_with_a_plain_suffix(tmp_path: Path, images: tuple[str, ...], expected: bytes) -> None:
    (sample,) = read_one(tmp_path / "0.tar", *(member(name, name.encode()) for name in images), LABELS)
    assert (sample.image, sample.tags, sample.problem) == (expected, ["x"], None)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([member("a.jpg", b"1"), member("a.png", b"2"), LABELS], "several images (.jpg, .png): one of them must have"),
        (
            [member("a.depth.png", b"1"), member("a.normal.png", b"2"), LABELS],
            "several images (.depth.png, .normal.png)",
        ),
        ([member("a.jpg", b"1"), LABELS, member("a.jpg", b"2"), LABELS], "several samples in a row have its key (.jpg"),
        ([member("a.1.jpg", b"1"), member("a.1.json", b"{}")], "no labels: the name a.1.json has a dot"),
        ([member("v1.01.jpg", b"1"), member("v1.02.jpg", b"2")], "a key no dot, since WebDataset ends it there"),
        (
            [member("a.jpg", type=tarfile.LNKTYPE, linkname="b.jpg"), LABELS],
            "its .jpg is a hard link to b.jpg, which cannot be followed in a stream: pack the shard again with tar"
            " --hard-dereference",
        ),
        ([member("a.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"), LABELS], "a symbolic link to /etc/passwd"),
        (
            [member("a.jpg", b"1"), member("a.json", type=tarfile.LNKTYPE, linkname="b.json")],
            "its .json is a hard link",
        ),
        ([member("a.txt", b"1"), LABELS], "no image: none of its members ends in jpg"),
    ],
)
def test_a_sample_that_is_ambiguous_or_incomplete_says_why(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], problem: str
) -> None:
    (sample,) = read_one(tmp_path / "0.tar", *members)
    assert sample.image is None
    assert problem in str(sample.problem)


def test_a_member_that_is_there_twice_with_the_same_content_is_no_problem(tmp_path: Path) -> None:
    (sample,) = read_one(tmp_path / "0.tar", member("a.jpg", b"1"), LABELS, member("a.jpg", b"1"), LABELS)
    assert (sample.image, sample.problem) == (b"1", None)


def test_a_member_that_is_too_large_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_reader, "MAX_MEMBER", 100)
    (sample, after) = read_one(
        tmp_path / "0.tar", member("a.jpg", bytes(101)), LABELS, member("b.jpg", b"1"), member("b.json", b"{}")
    )
    assert sample.problem == "its .jpg has 101 bytes, more than the 100 that are read"
    assert after.image == b"1"


def test_keys_that_are_not_utf8_stay_apart_and_printable(tmp_path: Path) -> None:
    members = [member(f"{key}.{end}", b"{}") for key in ("\udce9", "\udce8") for end in ("jpg", "json")]
    assert [sample.id for sample in read_one(tmp_path / "0.tar", *members)] == [r"s/\xe9", r"s/\xe8"]


def test_labels_are_read_in_one_spelling(tmp_path: Path) -> None:
    labels = {"tags": ["Cézanne", unicodedata.normalize("NFD", "Cézanne"), " oil ", ""], "content": " a\ud800"}
    (sample,) = read_one(tmp_path / "0.tar", member("a.jpg", b"1"), member("a.json", json.dumps(labels).encode()))
    assert sample.tags == ["Cézanne", "oil"]
    assert sample.content == r"a\ud800"
    assert indexing._examine(tmp_path / "0.tar")["tags"] == {"Cézanne": 1, "oil": 1}


def huge(name: str, size: int, type: bytes = tarfile.REGTYPE) -> bytes:
    """Return a header that claims `size` bytes, in the binary notation that has no limit."""
    info, _ = member(name, type=type)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (
        (size & (1 << 95) - 1 | 1 << 95).to_bytes(12, "big")
        if size >= 0
        else b"\xff" * 4 + size.to_bytes(8, "big", signed=True)
    )
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("size", [1 << 60, 1 << 40, -1, -(1 << 40)])
@pytest.mark.parametrize("type", [tarfile.REGTYPE, b"Z", tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_any_size_neither_hangs_nor_fills_the_memory(
    tmp_path: Path, size: int, type: bytes
) -> None:
    good = written(tmp_path / "good.tar", samples()[:4]).read_bytes()
    end = good.index(b"\0" * 1024, 4 * 512)  # of its two samples
    (tmp_path / "0.tar").write_bytes(good[: -(-end // 512) * 512] + huge("x.jpg", size, type) + good)
    first, _, *others = read_positions(str(tmp_path / "0.tar"), "s", range(4))
    assert first.problem is None
    if type != tarfile.DIRTYPE or size < 0:  # tarfile ignores the size of a folder
        assert all("cannot be read" in str(sample.problem) for sample in others)
    assert TarMembers(tmp_path / "0.tar").names()[:4] == ["00000.jpg", "00000.json", "00001.jpg", "00001.json"]
