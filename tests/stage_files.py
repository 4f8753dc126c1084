"""Write finished stages of the curation, and compare folders byte by byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylesim.core.stages.stage_parts import Part
from stylesim.curation.stage import SCHEMA, Stage


def write_stage(parts: list[list[dict[str, Any]]], folder: Path) -> Path:
    """Write a finished stage with these rows in its parts."""
    stage = Stage(folder, {}, processes=1, show=False)
    assert stage.begin() is None
    for number, rows in enumerate(parts):
        stage.write_part(number, Part(pa.Table.from_pylist(rows, SCHEMA), {"images": len(rows)}))
    stage.finish({})
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def read_dropped(folder: Path) -> dict[str, str]:
    """Return the reason of every dropped row of a stage, by id."""
    tables = [pq.read_table(path) for path in sorted(folder.glob("dropped-*.parquet"))]
    return {row["id"]: row["reason"] for table in tables for row in table.to_pylist()}
