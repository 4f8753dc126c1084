from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from item_rows import rows, vectors

from stylesim.core.errors import DataError
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.descriptor_writer import DescriptorWriter

LEGACY = Path(__file__).parents[1] / "legacy"


def test_pieces_are_joined_in_the_order_of_the_positions(tmp_path: Path):
    x = vectors(7)
    writer = DescriptorWriter(tmp_path / "set", 4, {"encoder": "e"}, piece=2)
    for part in ([4, 5, 6], [0], [1, 2, 3]):
        writer.add(x[part], rows(0, 7).iloc[part])
    made = writer.finish(damaged=[])

    np.testing.assert_array_equal(made.descriptors, x)
    assert made.ids == [f"r/{i}" for i in range(7)]
    assert made.meta == {"encoder": "e", "damaged": []}
    assert sorted(file.name for file in tmp_path.rglob("*")) == [
        "descriptors.npy",
        "items.parquet",
        "meta.json",
        "set",
    ]


def test_an_unfinished_set_is_refused_by_load_and_continued_by_the_next_writer(tmp_path: Path):
    x = vectors(6)
    first = DescriptorWriter(tmp_path / "set", 4, {"encoder": "e"}, piece=2)
    first.add(x[:4], rows(0, 4))
    first.add(x[4:5], rows(4, 5))  # the last piece is incomplete and is lost
    with pytest.raises(DataError, match=r"unfinished.*Run the same command again"):
        DescriptorSet.load(tmp_path / "set")

    second = DescriptorWriter(tmp_path / "set", 4, {"encoder": "e"}, piece=2)
    assert second.done == {"r/0", "r/1", "r/2", "r/3"}
    second.add(x[4:], rows(4, 6))
    np.testing.assert_array_equal(second.finish().descriptors, x)


def test_pieces_of_another_encoder_are_refused(tmp_path: Path):
    DescriptorWriter(tmp_path / "set", 4, {"encoder": "e"}).add(vectors(1), rows(0, 1))
    with pytest.raises(DataError, match=r"set\.partial holds .* another encoder or other settings\. Delete it"):
        DescriptorWriter(tmp_path / "set", 4, {"encoder": "f"})


def test_the_pieces_of_an_earlier_version_are_continued(tmp_path: Path):
    shutil.copytree(LEGACY / "interrupted.partial", tmp_path / "set.partial")
    whole = DescriptorSet.load(LEGACY / "descriptor_set")
    meta = {key: whole.meta[key] for key in whole.meta if key not in ("damaged", "data_digest")}
    meta["encoder"] = meta["encoder"] | {"a field of this version": 1}
    writer = DescriptorWriter(tmp_path / "set", 4, meta, piece=2)
    assert writer.done == set(whole.ids[:4])
    writer.add(whole.descriptors[4:], whole.items.iloc[4:])
    continued = writer.finish()
    np.testing.assert_array_equal(continued.descriptors, whole.descriptors)
    assert continued.items.to_dict("records") == whole.items.to_dict("records")


def test_a_write_that_is_killed_leaves_nothing_in_the_finished_set(tmp_path: Path):
    writer = DescriptorWriter(tmp_path / "set", 4, {}, piece=2)
    (tmp_path / "set.partial" / ".piece-000000.parquet.1.partial").write_bytes(b"half a piece")
    writer.add(vectors(3), rows(0, 3))
    writer.finish()
    assert {file.name for file in (tmp_path / "set").iterdir()} == {"descriptors.npy", "items.parquet", "meta.json"}
