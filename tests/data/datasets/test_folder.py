"""A user's own images, in folders and in tables."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from corpus import picture

from stylesim.core.errors import StylesimError
from stylesim.data.datasets.folder import find_samples, hold_out
from stylesim.data.modules import FolderDataModule
from stylesim.data.views import TwoViews


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        file = tmp_path / "mine" / ("monet/late" if number % 2 else "klee") / f"{number}.JPG"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    (tmp_path / "mine" / "top.png").write_bytes(picture(99, kind="PNG"))
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
        ({"url": ["x"]}, "expected one of path, image, name, file, got url"),
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
