"""Read the other columns of tables of images, such as licence, url, period and year, by the ids of the images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylesim.core.errors import DataError
from stylesim.data.image_tables import image_keys, read_image_table, read_table
from stylesim.data.labels import is_missing

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_COLUMNS = frozenset({"path", "key", "tags", "label", "content"})
"""Columns that `find_samples` reads."""
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d+)?", re.ASCII)


def metadata_of_image_table(table: Path, name: str) -> pd.DataFrame:
    """Return the columns of a table of paths that `find_samples` does not read, with the same ids as `find_samples`.

    If several rows have the same path, the first one counts.

    Args:
        table: A CSV, TSV or Parquet file.
        name: First part of the ids.
    """
    frame = read_image_table(table).drop_duplicates("path")
    ids = [f"{name}/{key}" for key in image_keys(frame)]
    further = [column for column in frame.columns if column not in SAMPLE_COLUMNS]
    return _tidy(frame[further].assign(id=ids))


def read_metadata(table: Path) -> pd.DataFrame:
    """Read a table of metadata with one row per image and a column `id`.

    Names of columns become lower-case words joined by underscores. In a CSV or TSV file, a column of numbers becomes
    numbers, unless that would change its text (`007`), and empty cells are missing values.

    Args:
        table: A CSV, TSV or Parquet file.

    Raises:
        DataError: If the file cannot be read, or has no column `id`.
    """
    if not table.is_file():
        raise DataError(f"There is no table of metadata at {table.absolute()}.")
    frame = read_table(table)
    if "id" not in frame:
        raise DataError(f"{table} needs a column id, got {', '.join(frame)}.")
    return _tidy(frame)


def _tidy(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    columns = {}
    for name in frame.columns:
        cells = [None if is_missing(cell) else cell for cell in frame[name].tolist()]
        plain = re.sub(r"[^a-z0-9]+", "_", name.lower(), flags=re.ASCII).strip("_")
        columns.setdefault(plain, pd.Series(cells if name == "id" else _numbers(cells), dtype=object))
    return pd.DataFrame(columns)


def _numbers(cells: list[Any]) -> list[Any]:
    """Convert text to integers or floats, if all cells are numbers whose text would not change."""
    texts = [cell for cell in cells if cell is not None]
    if not all(isinstance(text, str) and _NUMBER.fullmatch(text) for text in texts):
        return cells
    kind = float if any("." in text for text in texts) else int
    return [None if cell is None else kind(cell) for cell in cells]
