from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from stylesim.core.errors import DataError
from stylesim.data.datasets.folder import find_samples
from stylesim.data.image_metadata import metadata_of_image_table, read_metadata


def test_further_columns_of_a_table_of_paths_have_the_ids_of_its_samples(tmp_path: Path) -> None:
    table = tmp_path / "works.csv"
    table.write_text("path,key,artist,Year made,licence\na.png,,monet,1890,CC0\na.png,,klimt,1,x\nb.png,nr 2,klimt,,\n")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    metadata = metadata_of_image_table(table, "works")
    assert metadata["id"].tolist() == [sample.id for sample in find_samples(table)] == ["works/a.png", "works/nr 2"]
    assert metadata["artist"].tolist() == ["monet", "klimt"]
    assert metadata["year_made"].tolist() == [1890, None]
    assert metadata["licence"].tolist() == ["CC0", None]
    assert list(metadata) == ["artist", "year_made", "licence", "id"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "", "-3"], [1, None, -3]),
        (["1", "2.50"], [1.0, 2.5]),
        (["007", "8"], ["007", "8"]),
        (["1e3", "x"], ["1e3", "x"]),
        (["nan", "1"], ["nan", "1"]),
        (["1_000", "1"], ["1_000", "1"]),
        (["", ""], [None, None]),
    ],
)
def test_text_becomes_numbers_only_where_nothing_is_lost(tmp_path: Path, cells: list[str], expected: list) -> None:
    table = tmp_path / "metadata.csv"
    table.write_text("id,value\n" + "".join(f"00{row},{cell}\n" for row, cell in enumerate(cells)))
    metadata = read_metadata(table)
    assert metadata["value"].tolist() == expected
    assert metadata["id"].tolist() == [f"00{row}" for row in range(len(cells))]


def test_parquet_keeps_its_types_and_a_table_without_ids_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"id": ["a"], "n": ["12"], "public": [True]}).to_parquet(tmp_path / "m.parquet")
    assert read_metadata(tmp_path / "m.parquet")["public"].tolist() == [True]
    (tmp_path / "m.csv").write_text("name,year\na,1\n")
    with pytest.raises(DataError, match="needs a column id, got name, year"):
        read_metadata(tmp_path / "m.csv")
    with pytest.raises(DataError, match="no table of metadata"):
        read_metadata(tmp_path / "absent.csv")
