from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stylesim.core.errors import StylesimError
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table
from stylesim.retrieval.descriptor_writer import DescriptorWriter


def rows(start: int, stop: int):
    return item_table((f"r/{i}", ["set:a", f"n:{i}"], None if i % 2 else "cat", "r", i) for i in range(start, stop))


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)


def test_a_set_comes_back_from_disk_as_it_was(tmp_path: Path):
    before = DescriptorSet(vectors(5), rows(0, 5), {"greyscale": False, "damaged": [["x", "why"]]})
    after = DescriptorSet.load(before.save(tmp_path / "deep" / "set"))

    assert isinstance(after.descriptors, np.memmap)
    np.testing.assert_array_equal(after.descriptors, before.descriptors)
    assert after.items.to_dict("records") == before.items.to_dict("records")
    assert after.items["content"].tolist() == ["cat", None, "cat", None, "cat"]
    assert after.meta == before.meta
    assert after.damaged == [("x", "why")]
    assert after.select([3, 1]).ids == ["r/3", "r/1"]


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


def test_an_interrupted_writer_is_refused_by_load_and_taken_up_by_the_next(tmp_path: Path):
    x = vectors(6)
    first = DescriptorWriter(tmp_path / "set", 4, {"encoder": "e"}, piece=2)
    first.add(x[:4], rows(0, 4))
    first.add(x[4:5], rows(4, 5))  # the last piece is not full, and is lost
    with pytest.raises(StylesimError, match=r"unfinished.*Run the same command again"):
        DescriptorSet.load(tmp_path / "set")

    second = DescriptorWriter(tmp_path / "set", 4, {"encoder": "e"}, piece=2)
    assert second.done == {"r/0", "r/1", "r/2", "r/3"}
    second.add(x[4:], rows(4, 6))
    np.testing.assert_array_equal(second.finish().descriptors, x)


def test_pieces_of_another_encoder_are_not_mixed_in(tmp_path: Path):
    DescriptorWriter(tmp_path / "set", 4, {"encoder": "e"}).add(vectors(1), rows(0, 1))
    with pytest.raises(StylesimError, match=r"set\.partial holds .* another encoder or settings\. Delete it"):
        DescriptorWriter(tmp_path / "set", 4, {"encoder": "f"})


def test_a_finished_folder_is_never_overwritten(tmp_path: Path):
    made = DescriptorSet(vectors(2), rows(0, 2))
    made.save(tmp_path / "set")
    with pytest.raises(StylesimError, match="exists already"):
        made.save(tmp_path / "set")
    with pytest.raises(StylesimError, match="exists already"):
        DescriptorWriter(tmp_path / "set", 4, {})


@pytest.mark.parametrize("poison", [np.nan, np.inf, 0.0])
def test_descriptors_without_a_direction_are_refused_by_name(tmp_path: Path, poison: float):
    x = vectors(3)
    x[1] = poison
    message = r"1 of 3 descriptors are NaN, infinite or zero: r/1\."
    with pytest.raises(StylesimError, match=message):
        DescriptorSet(x, rows(0, 3)).save(tmp_path / "set")
    with pytest.raises(StylesimError, match=message):
        DescriptorWriter(tmp_path / "set", 4, {}).add(x, rows(0, 3))
    assert not (tmp_path / "set").exists()


def test_what_is_no_descriptor_set_is_refused(tmp_path: Path):
    with pytest.raises(StylesimError, match="no row for each of 2"):
        DescriptorSet(vectors(3), rows(0, 2))
    with pytest.raises(StylesimError, match="1 ids occur more than once, the first being 'r/0'"):
        DescriptorSet(vectors(2), rows(0, 2).iloc[[0, 0]])
    with pytest.raises(StylesimError, match=r"not a descriptor set: it has no descriptors\.npy"):
        DescriptorSet.load(tmp_path)

    folder = DescriptorSet(vectors(2), rows(0, 2)).save(tmp_path / "set")
    (folder / "items.parquet").write_bytes(b"PAR1 truncated")
    with pytest.raises(StylesimError, match=r"cannot be read .*: describe the images again"):
        DescriptorSet.load(folder)


def test_meta_is_readable_json(tmp_path: Path):
    folder = DescriptorSet(vectors(2), rows(0, 2), {"encoder": {"name": "CSD"}}).save(tmp_path / "set")
    assert json.loads((folder / "meta.json").read_text())["encoder"]["name"] == "CSD"
