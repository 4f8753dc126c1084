"""What goes wrong with data: refused at the start, or a skipped sample that is counted and named."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import edit_index, encoded_image, write_root, write_tar
from PIL import Image

from stylesim.core.errors import DataError, StylesimError
from stylesim.data.batch import Batch
from stylesim.data.modules import ShardDataModule
from stylesim.data.roots import Root, name_roots
from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_index import load_index, verify_digests
from stylesim.data.shards.shard_samples import read_shards
from stylesim.data.views import TwoViews


def module_of(root: Any, **options: Any) -> ShardDataModule:
    settings = {"batch_size": 4, "workers": 0, "shuffle_buffer": 6, "views": TwoViews(8)}
    return ShardDataModule(root, **settings | options)


def batches_of(root: Path, **options: Any) -> list[Batch]:
    return list(module_of(str(root), **options).train_dataloader())


def damage_of(batches: list[Batch]) -> list[tuple[str, str]]:
    return [pair for batch in batches for pair in batch.damaged]


# Refused at the start.


def test_a_missing_root_is_named():
    with pytest.raises(StylesimError, match=r"There is no folder /no/such/place: set data.root"):
        module_of("/no/such/place").train_dataloader()


def test_an_empty_list_of_roots_is_refused():
    with pytest.raises(StylesimError, match="must name at least one folder"):
        module_of([]).train_dataloader()


def test_an_empty_root_says_what_belongs_there(tmp_path: Path):
    with pytest.raises(StylesimError, match="is empty: put shards"):
        module_of(str(tmp_path)).train_dataloader()


def test_a_root_without_an_index_names_the_command(tmp_path: Path):
    write_tar(tmp_path / "0.tar", {"a.jpg": encoded_image(0), "a.json": {"tags": ["x"]}})
    with pytest.raises(StylesimError, match=re.escape(f"stylesim index folder={tmp_path}")):
        module_of(str(tmp_path)).train_dataloader()


@pytest.mark.parametrize("text", ["", "[]", '{"shards": []}', '{"shards": [{"name": 3}], "tags": {}}'])
def test_a_broken_index_is_refused(tmp_path: Path, text: str):
    (write_root(tmp_path / "train", 8) / "index.json").write_text(text)
    with pytest.raises(StylesimError, match=r"index\.json cannot be read"):
        module_of(str(tmp_path / "train")).train_dataloader()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/x.tar", "a;rm -rf x.tar", "..tar"])
def test_an_index_cannot_point_outside_its_folder(tmp_path: Path, name: str):
    root = write_root(tmp_path / "train", 8)
    edit_index(root, name=name)
    with pytest.raises(StylesimError, match="expected a file name"):
        load_index(Root(str(root), "train"))


def test_an_index_that_disagrees_with_the_files_is_refused(tmp_path: Path):
    root = write_root(tmp_path / "train", 20)
    (root / "00000.tar").unlink()
    shutil.copy(root / "00001.tar", root / "more.tar")
    with (root / "00002.tar").open("ab") as file:
        file.write(b"x")
    with pytest.raises(StylesimError) as caught:
        module_of(str(root)).train_dataloader()
    assert "00000.tar is missing; more.tar is not listed; 00002.tar has" in str(caught.value)


def test_a_shard_with_the_right_size_but_other_bytes_is_found_by_its_digest(tmp_path: Path):
    root = write_root(tmp_path / "train", 8)
    data = bytearray((root / "00001.tar").read_bytes())
    data[700] ^= 1
    (root / "00001.tar").write_bytes(data)
    with pytest.raises(StylesimError, match=r"00001.tar is not the file that was indexed"):
        verify_digests(load_index(Root(str(root), "train")), show=False)


def test_an_address_that_does_not_answer_is_named():
    with pytest.raises(StylesimError, match=r"http://127.0.0.1:9/x/index.json cannot be read"):
        module_of("http://127.0.0.1:9/x").train_dataloader()


def test_tags_that_match_nothing_name_near_ones(tmp_path: Path):
    root = write_root(tmp_path / "train", 8)
    with pytest.raises(StylesimError, match=r"matches none of the 3 tags; the nearest are set:\d"):
        module_of(str(root), tags=["sett:*"]).train_dataloader()


def test_data_that_do_not_fill_a_batch_are_refused(tmp_path: Path):
    with pytest.raises(StylesimError, match="8 images do not fill one global batch of 9"):
        batches_of(write_root(tmp_path / "train", 8), batch_size=9)


def test_a_root_that_is_given_twice_is_refused():
    with pytest.raises(StylesimError, match="must be given once"):
        name_roots(["/data/a", "/data/a"])


def test_fewer_shards_than_readers_are_split_further(tmp_path: Path):
    batches = batches_of(write_root(tmp_path / "train", 24, size=24), workers=4)
    assert len({key for batch in batches for key in batch.keys}) == 24


# Skipped while reading.


def broken_root(tmp_path: Path, **members: bytes | dict) -> Path:
    """Write and index a shard of twelve good images and the given members."""
    good: dict[str, bytes | dict] = {}
    for number in range(12):
        good |= {f"good{number}.jpg": encoded_image(number), f"good{number}.json": {"tags": ["x"]}}
    root = tmp_path / "train"
    write_tar(root / "0.tar", good | {name.replace("__", "."): data for name, data in members.items()})
    index_shards(root, show=False)
    return root


def gigapixel_png() -> bytes:
    """Return a PNG whose header says that it is 30,000 x 30,000 px."""
    data = bytearray(encoded_image(0, kind="PNG"))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"bad__json": {"tags": []}}, "no image"),
        ({"bad__jpg": encoded_image(0)}, "no labels"),
        ({"bad__jpg": encoded_image(0), "bad__json": b"{not json"}, "json cannot be read"),
        ({"bad__jpg": encoded_image(0), "bad__json": b"[1]"}, "json cannot be read"),
        ({"bad__jpg": encoded_image(0), "bad__json": b"[" * 100_000}, "json cannot be read"),
        ({"bad__jpg": encoded_image(0), "bad__json": {"tags": "impressionism"}}, "must be a list of strings"),
        ({"bad__jpg": b"no image", "bad__json": {"tags": []}}, "cannot be decoded"),
        ({"bad__jpg": encoded_image(0)[:300], "bad__json": {"tags": []}}, "cannot be decoded"),
        ({"bad__png": gigapixel_png(), "bad__json": {"tags": []}}, "30000|bomb"),
    ],
)
def test_a_damaged_sample_leaves_its_batch_short_and_is_named(tmp_path: Path, members: dict, problem: str):
    root = broken_root(tmp_path, **members)
    batches = batches_of(root, batch_size=13)
    [(key, reason)] = damage_of(batches)
    assert key == "train/0/bad"
    assert re.search(problem, reason), reason
    assert batches[0].views.shape[1] == len(batches[0].tags) == len(batches[0].keys) == 12


def test_all_samples_of_a_batch_may_be_damaged(tmp_path: Path):
    write_tar(tmp_path / "train" / "0.tar", {f"k{i}.json": {"tags": ["x"]} for i in range(4)})
    index_shards(tmp_path / "train", show=False)
    [batch] = batches_of(tmp_path / "train")
    assert batch.views.shape == (2, 0, 3, 8, 8)
    assert batch.tags.shape == (0, 0)
    assert len(batch.damaged) == 4


def test_a_tag_that_is_not_in_the_index_ends_the_run(tmp_path: Path):
    root = broken_root(tmp_path, odd__jpg=encoded_image(1), odd__json={"tags": ["y"]})
    index = json.loads((root / "index.json").read_text())
    del index["tags"]["y"]
    (root / "index.json").write_text(json.dumps(index))
    for workers in (0, 1):
        with pytest.raises(
            DataError, match=r"^The tag 'y' of train/0/odd is not in the index of its shard.*=FOLDER`\.$"
        ):
            batches_of(root, batch_size=13, workers=workers)


def test_images_without_selected_tags_are_kept(tmp_path: Path):
    root = broken_root(
        tmp_path,
        none__jpg=encoded_image(1),
        none__json={"caption": "a"},
        other__jpg=encoded_image(2),
        other__json={"tags": ["y"]},
    )
    [batch] = batches_of(root, batch_size=14, tags=["x"])
    assert batch.damaged == []
    assert batch.tags.sum() == 12


def test_a_root_without_any_tag_trains_without_labels(tmp_path: Path):
    write_tar(
        tmp_path / "0.tar", {f"{i}.{e}": d for i in range(4) for e, d in (("jpg", encoded_image(i)), ("json", {}))}
    )
    index_shards(tmp_path, show=False)
    [batch] = batches_of(tmp_path)
    assert batch.tags.shape == (4, 0)


def test_shards_of_img2dataset_are_read_unchanged(tmp_path: Path):
    members: dict[str, bytes | dict] = {}
    for number in range(4):
        key = f"{number:09d}"
        about = {
            "caption": "by monet",
            "url": "http://x",
            "key": key,
            "status": "success",
            "error_message": None,
        }
        members |= {f"{key}.jpg": encoded_image(number), f"{key}.json": about, f"{key}.txt": b"by monet"}
    write_tar(tmp_path / "00000.tar", members)
    (tmp_path / "00000_stats.json").write_text("{}")
    (tmp_path / "00000.parquet").write_bytes(b"")
    assert index_shards(tmp_path, show=False) == []
    [batch] = batches_of(tmp_path)
    assert sorted(key.split("/")[-1] for key in batch.keys) == [f"{number:09d}" for number in range(4)]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_the_missing_part_of_a_truncated_shard_is_skipped_and_counted(tmp_path: Path, suffix: str):
    root = write_root(tmp_path / "train", 24, size=8, suffix=suffix)
    shard = root / f"00000{suffix}"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    edit_index(root, bytes=shard.stat().st_size)
    batches = batches_of(root)
    damaged = damage_of(batches)
    assert {where for where, _ in damaged} == {"train/00000"}
    assert all("the shard" in why for _, why in damaged)
    assert 0 < len(damaged) <= 7
    assert len([key for batch in batches for key in batch.keys]) + len(damaged) == 24


def test_a_truncated_shard_is_indexed_as_far_as_it_can_be_read(tmp_path: Path):
    root = write_root(tmp_path / "train", 16, size=8)
    shard = root / "00001.tar"
    shard.write_bytes(shard.read_bytes()[:13_000])
    problems = index_shards(root, processes=1, show=False)
    assert any("00001.tar breaks off after" in problem for problem in problems)
    count = load_index(Root(str(root), "train")).count
    assert 10 <= count < 16
    assert damage_of(batches_of(root, batch_size=count)) == []


def test_all_samples_of_a_shard_that_is_not_a_tar_are_skipped(tmp_path: Path):
    root = write_root(tmp_path / "train", 24, size=8)
    size = (root / "00001.tar").stat().st_size
    (root / "00001.tar").write_bytes(np.random.default_rng(0).bytes(size))
    assert len(damage_of(batches_of(root))) == 8


def test_a_remote_shard_that_is_missing_or_too_short_is_skipped(tmp_path: Path):
    root = write_root(tmp_path / "train", 24, size=8)
    edit_index(root, count=10)
    (root / "00001.tar").unlink()
    batches = list(module_of(f"pipe:cat {root}/{{}} 2> /dev/null").train_dataloader())
    reasons = [why for _, why in damage_of(batches)]
    assert len([why for why in reasons if "ends before sample 8" in why]) == 2
    assert len(reasons) == 10


def test_damage_is_the_same_after_a_resume(tmp_path: Path):
    root = write_root(tmp_path / "train", 24, size=8)
    (root / "00001.tar").write_bytes(b"x" * (root / "00001.tar").stat().st_size)
    whole = batches_of(root)
    module = module_of(str(root))
    module.position = 2
    tail = list(module.train_dataloader())
    assert [(b.keys, b.damaged) for b in tail] == [(b.keys, b.damaged) for b in whole[2:]]


def test_reading_shards_through_names_the_damaged_samples(tmp_path: Path):
    root = broken_root(tmp_path, bad__jpg=encoded_image(0))
    samples = read_shards(root)
    assert len(samples) == len(list(samples)) == 13
    [bad] = [sample for sample in samples if sample.problem]
    assert (bad.id, bad.image, bad.problem) == ("train/0/bad", None, "no labels: there is no .json beside the image")


def test_an_image_with_an_exif_rotation_is_not_damaged(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(tmp_path / "x.jpg", exif=exif)
    root = broken_root(tmp_path, up__jpg=(tmp_path / "x.jpg").read_bytes(), up__json={"tags": []})
    assert damage_of(batches_of(root, batch_size=13)) == []
