"""The stages of the curation: their columns, and reading them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stylesim.core.stages import stage
from stylesim.core.stages.stage import stage_digest
from stylesim.core.stages.stage_parts import part_paths

SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # unique: the key of img2dataset, an md5, or a relative path
        ("image", pa.string()),  # a locator (see `read_image_bytes`); null while only the URL is known
        ("url", pa.string()),
        ("caption", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("aesthetic", pa.float32()),
        ("nsfw", pa.string()),
        ("md5", pa.string()),
        ("content", pa.string()),
        ("tags", pa.list_(pa.string())),  # "artist:vincent van gogh"; null until the caption has been searched
    ]
)
"""The columns of a part. Unknown values are null."""


@dataclass(frozen=True)
class Stage(stage.Stage):
    """A stage of the curation, whose parts have the columns of SCHEMA unless only the stage itself reads them."""

    schema: pa.Schema | None = SCHEMA


def read_stage(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all rows of a finished stage, in order.

    Args:
        folder: The folder of the stage.
        columns: The columns to read; None reads all columns of SCHEMA.

    Returns:
        The rows.

    Raises:
        ConfigError: If the stage is not finished.
    """
    stage_digest(folder)
    names = list(columns) if columns else SCHEMA.names
    schema = pa.schema([SCHEMA.field(name) for name in names])
    return pa.concat_tables(
        [schema.empty_table(), *(pq.read_table(p, columns=names).replace_schema_metadata() for p in part_paths(folder))]
    )
