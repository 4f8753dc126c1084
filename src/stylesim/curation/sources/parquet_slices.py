"""Read parquet files of any size a few rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stylesim.core.errors import ConfigError, DataError
from stylesim.core.image_folders import visible_files
from stylesim.core.stages.stage import SUMMARY
from stylesim.core.stages.stage_parts import part_paths


class Slice(NamedTuple):
    """Consecutive rows of one row group."""

    path: Path
    group: int
    number: int
    """Which slice of the group this is, in slices of `rows` rows."""
    rows: int


def parquet_files(path: str | Path) -> list[Path]:
    """Return a parquet file, all parquet files of a folder at any depth, or the parts of a stage (`<out>/3-filter`).

    Raises:
        ConfigError: If there is none.
        DataError: If a file is not a parquet file.
    """
    location = Path(path).expanduser().absolute()
    if location.is_file():
        files = [location]
    else:
        files = part_paths(location) if (location / SUMMARY).is_file() else _parquets_below(location)
    if not files:
        raise ConfigError(f"source.path={path}: there is no parquet file at {location}.")
    for file in files:
        try:
            pq.read_metadata(file)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file} cannot be read as parquet ({error}): download it again.") from error
    return files


def _parquets_below(folder: Path) -> list[Path]:
    files = visible_files(folder) if folder.is_dir() else []
    return sorted(file for file in files if file.suffix.lower() == ".parquet")


def slices(files: Sequence[Path], rows: int) -> list[Slice]:
    """Divide all rows of the files into slices of at most `rows` rows."""
    return [
        Slice(file, group, number, rows)
        for file in files
        for metadata in [pq.read_metadata(file)]
        for group in range(metadata.num_row_groups)
        for number in range(-(-metadata.row_group(group).num_rows // rows))
    ]


def read_slice(piece: Slice, columns: Sequence[str] | None = None) -> tuple[pa.Table, int]:
    """Return the rows of a slice, and the number of its first row in the file. No other rows are held in memory."""
    with pq.ParquetFile(piece.path) as file:
        batches = file.iter_batches(piece.rows, [piece.group], columns, use_threads=False)
        batch = next(islice(batches, piece.number, None))
        first = sum(file.metadata.row_group(group).num_rows for group in range(piece.group))
    return pa.Table.from_batches([batch]), first + piece.number * piece.rows
