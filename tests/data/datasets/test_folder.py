"""A user's own images, in folders and in tables."""

from __future__ import annotations

import logging
import os
import tarfile
import unicodedata
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from corpus import encoded_image

from stylesim.core.errors import StylesimError
from stylesim.data.datasets.folder import find_samples, hold_out
from stylesim.data.modules import FolderDataModule
from stylesim.data.views import TwoViews


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        file = tmp_path / "mine" / ("monet/late" if number % 2 else "klee") / f"{number}.JPG"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded_image(number))
    (tmp_path / "mine" / "top.png").write_bytes(encoded_image(99, kind="PNG"))
    (tmp_path / "mine" / "notes.txt").write_text("not an image")
    (tmp_path / "mine" / ".cache").mkdir()
    (tmp_path / "mine" / ".cache" / "x.jpg").write_bytes(b"")
    return tmp_path / "mine"


def module_of(root: Any, **options: Any) -> FolderDataModule:
    return FolderDataModule(root, **{"batch_size": 4, "workers": 0, "views": TwoViews(8)} | options)


def test_the_first_folder_is_the_tag_and_images_at_the_top_have_none(folder: Path):
    items = find_samples(folder)
    assert Counter(tuple(item.tags) for item in items) == {("klee",): 10, ("monet",): 10, (): 1}
    assert items[-1].id == "mine/top.png"
    assert [item.id for item in items] == sorted(item.id for item in items)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_names_paths_tags_and_contents(folder: Path, suffix: str):
    table = folder / f"table{suffix}"
    frame = pd.DataFrame(
        {
            "path": ["klee/0.JPG", "klee/2.JPG", "monet/late/1.JPG", "klee/0.JPG"],
            "tags": ["a|b; c", "", "a", "d"],
            "content": ["x", "", "", "x"],
        }
    )
    if suffix == ".parquet":
        frame["tags"] = [["a", "b", "c"], [], ["a"], ["d"]]
        frame.to_parquet(table)
    else:
        frame.to_csv(table, sep="\t" if suffix == ".tsv" else ",", index=False)
    items = find_samples(table)
    assert [(item.id, item.tags, item.content) for item in items] == [
        ("table/klee/0.JPG", ["a", "b", "c", "d"], "x"),
        ("table/klee/2.JPG", [], None),
        ("table/monet/late/1.JPG", ["a"], None),
    ]
    assert items[0].image == folder / "klee/0.JPG"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"url": ["x"]}, "expected one of path, .*, name, got url"),
        ({"path": ["gone.jpg"]}, "Give paths relative to the table"),
    ],
)
def test_a_table_that_names_no_image_is_refused(tmp_path: Path, columns: dict, message: str):
    pd.DataFrame(columns).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(StylesimError, match=message):
        find_samples(tmp_path / "t.csv")


def test_a_location_without_images_is_refused(tmp_path: Path):
    with pytest.raises(StylesimError, match="There is no image in"):
        find_samples(tmp_path)
    with pytest.raises(StylesimError, match="no folder of images and no table"):
        module_of(str(tmp_path / "gone")).train_dataloader()
    (tmp_path / "t.parquet").write_bytes(b"x")
    with pytest.raises(StylesimError, match="cannot be read as a table"):
        find_samples(tmp_path / "t.parquet")


def test_shards_without_an_index_are_refused_with_the_command_that_makes_one(tmp_path: Path):
    with tarfile.open(tmp_path / "00000.tar", "w"):
        pass
    with pytest.raises(StylesimError, match="index them first: stylesim index folder="):
        find_samples(tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_serves_each_image_once_in_an_epoch_and_resumes(folder: Path, workers: int):
    whole = list(module_of(str(folder), workers=workers).train_dataloader())
    keys = [key for batch in whole for key in batch.keys]
    assert len(set(keys)) == len(keys) == 20  # 21 less a remainder of 1
    assert keys != sorted(keys)
    module = module_of(str(folder), workers=workers)
    module.position = 3
    assert [batch.keys for batch in module.train_dataloader()] == [batch.keys for batch in whole[3:]]
    assert module.vocabulary == ["klee", "monet"]


def test_a_damaged_or_missing_file_leaves_its_batch_short(folder: Path):
    module = module_of(str(folder), batch_size=21)
    loader = module.train_dataloader()
    (folder / "klee" / "0.JPG").unlink()
    (folder / "klee" / "2.JPG").write_bytes(b"no image")
    [batch] = loader
    assert sorted(where for where, _ in batch.damaged) == ["mine/klee/0.JPG", "mine/klee/2.JPG"]
    assert batch.views.shape[1] == 19


def test_held_out_images_are_not_trained_on_and_are_the_validation_set(folder: Path, tmp_path: Path):
    module = module_of(str(folder), validation=partial(SimpleNamespace, relevant="*"), validation_share=0.3)
    module.trainer = SimpleNamespace(default_root_dir=str(tmp_path / "run"))  # type: ignore[assignment]
    spec = module.retrieval_sets()["validation"]
    [table] = spec.query
    assert Path(table).parent == tmp_path / "run"
    held = find_samples(table)
    assert Counter(item.tags[0] for item in held) == {"klee": 3, "monet": 3}
    trained = {str(item.image) for source in module.sources for item in source.samples}  # type: ignore[union-attr]
    assert len(trained) == 15
    assert not trained & {str(item.image) for item in held}


def test_at_least_two_images_of_a_tag_are_held_out_and_always_the_same(folder: Path):
    items = find_samples(folder)
    assert hold_out(items, 0.01) == hold_out(list(reversed(items)), 0.01)
    assert len(hold_out(items, 0.01)) == 4
    assert hold_out(items[:3], 0.5) == set()


def test_labels_that_are_spelled_alike_are_one_label(tmp_path: Path):
    for number, name in enumerate(("Cézanne", unicodedata.normalize("NFD", "Cézanne"), "Cézanne ")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{number}.jpg").write_bytes(encoded_image(number))
    assert {tuple(sample.tags) for sample in find_samples(tmp_path)} == {("Cézanne",)}
    assert len({sample.id for sample in find_samples(tmp_path)}) == 3


def test_files_of_a_windows_zip_keep_their_labels(tmp_path: Path):
    for name in ("monet\\0.jpg", "monet/1.jpg", "top.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded_image(1))
    assert {sample.id.partition("/")[2]: sample.tags for sample in find_samples(tmp_path)} == {
        "monet\\0.jpg": ["monet"],
        "monet/1.jpg": ["monet"],
        "top.jpg": [],
    }


def test_names_that_are_not_utf8_train_under_ids_of_their_own(tmp_path: Path):
    for label, name in ((b"\xe9", b"\xe9.jpg"), (b"\xe9", b"\xe8.jpg"), (b"\xe8", b"0.jpg"), (b"\xe8", b"1.jpg")):
        file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/mine/" + label + b"/" + name))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded_image(1))
    module = module_of(str(tmp_path / "mine"))
    [batch] = module.train_dataloader()
    assert module.vocabulary == [r"\xe8", r"\xe9"]
    assert sorted(batch.keys) == [r"mine/\xe8/0.jpg", r"mine/\xe8/1.jpg", r"mine/\xe9/\xe8.jpg", r"mine/\xe9/\xe9.jpg"]
    assert batch.damaged == []


def test_a_home_folder_is_found_by_its_sign(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert [sample.id for sample in find_samples("~/mine")] == [sample.id for sample in find_samples(folder)]
    assert len(module_of("~/mine").sources[0].counts) == 21


def test_images_that_a_table_names_but_that_are_missing_are_left_out_of_training(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    table = folder / "t.csv"
    table.write_text("path,tags\n" + "".join(f"gone{n}.jpg,x\n" for n in range(3)) + "klee/0.JPG,x\nklee/2.JPG,x\n")
    [batch] = module_of(str(table), batch_size=2).train_dataloader()
    assert sorted(batch.keys) == ["t.csv/klee/0.JPG", "t.csv/klee/2.JPG"]
    assert "3 of the 5 images" in caplog.text
    assert "do not exist, and are left out" in caplog.text


def test_what_is_no_image_is_counted_by_suffix(folder: Path, caplog: pytest.LogCaptureFixture):
    for name in ("a.xcf", "b.xcf", "c.mp4"):
        (folder / "klee" / name).write_bytes(b"something else")
    with caplog.at_level(logging.INFO):
        assert len(find_samples(folder)) == 21
    assert "21 images; 4 other files are left out (2 .xcf, 1 .mp4, 1 .txt)" in caplog.text


@pytest.mark.parametrize("workers", [0, 2])
def test_balanced_batches_of_files_hold_several_images_of_a_tag_and_resume(folder: Path, workers: int):
    for number in range(4):  # beside 10 + 10 images of frequent tags
        (folder / "rare").mkdir(exist_ok=True)
        (folder / "rare" / f"{number}.jpg").write_bytes(encoded_image(50 + number))
    whole = list(module_of(str(folder), balance="2x4", batch_size=8, workers=workers).train_dataloader())
    assert len(whole) == 3
    for batch in whole:
        if workers == 0:  # a reader chooses from its own part of the images, which here is the half of 25
            assert sorted(batch.tags.sum(0).tolist()) == [0, 4, 4]
        assert len(set(batch.keys)) == 8
    module = module_of(str(folder), balance="2x4", batch_size=8, workers=workers)
    module.position = 1
    assert [batch.keys for batch in module.train_dataloader()] == [batch.keys for batch in whole[1:]]


def test_a_file_that_vanishes_from_a_balanced_batch_is_counted(folder: Path):
    loader = module_of(str(folder), balance="inverse_frequency", batch_size=21).train_dataloader()
    (folder / "klee" / "0.JPG").unlink()
    [batch] = loader
    assert [key for key, _ in batch.damaged] == ["mine/klee/0.JPG"]
    assert len(batch.keys) == 20


def test_a_balance_that_does_not_fit_the_batch_is_refused(folder: Path):
    with pytest.raises(StylesimError, match="P x K must be the batch size"):
        module_of(str(folder), balance="4x4")
