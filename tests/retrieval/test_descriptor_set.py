from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from item_rows import rows, vectors

from stylesim.core.errors import DataError
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.descriptor_writer import DescriptorWriter

LEGACY = Path(__file__).parents[1] / "legacy"


def test_a_saved_set_loads_unchanged(tmp_path: Path):
    before = DescriptorSet(vectors(5), rows(0, 5), {"greyscale": False, "damaged": [["x", "why"]]})
    after = DescriptorSet.load(before.save(tmp_path / "deep" / "set"))

    assert isinstance(after.descriptors, np.memmap)
    np.testing.assert_array_equal(after.descriptors, before.descriptors)
    assert after.items.to_dict("records") == before.items.to_dict("records")
    assert after.items["content"].tolist() == ["cat", None, "cat", None, "cat"]
    assert after.meta == before.meta
    assert after.damaged == [("x", "why")]
    assert after.select([3, 1]).ids == ["r/3", "r/1"]


def test_a_finished_folder_is_never_overwritten(tmp_path: Path):
    made = DescriptorSet(vectors(2), rows(0, 2))
    made.save(tmp_path / "set")
    with pytest.raises(DataError, match="already exists"):
        made.save(tmp_path / "set")
    with pytest.raises(DataError, match="already exists"):
        DescriptorWriter(tmp_path / "set", 4, {})


@pytest.mark.parametrize("poison", [np.nan, np.inf, 0.0])
def test_nan_infinite_and_zero_descriptors_are_refused_by_id(tmp_path: Path, poison: float):
    x = vectors(3)
    x[1] = poison
    message = r"1 of 3 descriptors are NaN, infinite or zero: r/1\."
    with pytest.raises(DataError, match=message):
        DescriptorSet(x, rows(0, 3)).save(tmp_path / "set")
    with pytest.raises(DataError, match=message):
        DescriptorWriter(tmp_path / "set", 4, {}).add(x, rows(0, 3))
    assert not (tmp_path / "set").exists()


def test_inconsistent_or_incomplete_sets_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="for 2 items"):
        DescriptorSet(vectors(3), rows(0, 2))
    with pytest.raises(DataError, match="1 occur more than once, the first being 'r/0'"):
        DescriptorSet(vectors(2), rows(0, 2).iloc[[0, 0]])
    with pytest.raises(DataError, match=r"not a descriptor set: it has no descriptors\.npy"):
        DescriptorSet.load(tmp_path)

    folder = DescriptorSet(vectors(2), rows(0, 2)).save(tmp_path / "set")
    (folder / "items.parquet").write_bytes(b"PAR1 truncated")
    with pytest.raises(DataError, match=r"cannot be read .* embed the images again"):
        DescriptorSet.load(folder)


def test_meta_is_written_as_json(tmp_path: Path):
    folder = DescriptorSet(vectors(2), rows(0, 2), {"encoder": {"name": "CSD"}}).save(tmp_path / "set")
    assert json.loads((folder / "meta.json").read_text())["encoder"]["name"] == "CSD"


def test_a_set_written_by_an_earlier_version_loads():
    old = DescriptorSet.load(LEGACY / "descriptor_set")
    assert old.ids == [f"works/{i}.png" for i in range(6)]
    assert old.items["tags"].tolist()[:2] == [[], ["artist:mucha", "year:1891"]]
    assert old.items["content"].tolist() == ["c0", "c1", "c0", None, "c0", "c1"]
    assert old.items["position"].tolist() == [0, 1, 2, 3, 5, 6]
    assert old.descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(old.descriptors, axis=1), 1, atol=1e-6)
    assert old.meta["encoder"]["name"] == "CSD ViT-L/14"
    assert old.damaged == [("works/broken.png", "it cannot be decoded")]
