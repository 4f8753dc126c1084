"""Read a user's own images: a folder, or a table that names the files."""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from stylesim.core.errors import ConfigError, CorruptSampleError
from stylesim.core.file_names import find_file, printable
from stylesim.core.image_folders import describe_suffixes, select_images, visible_files
from stylesim.core.images import EXTENSIONS, image_size
from stylesim.core.stages.stage import listing_digest, require_positive
from stylesim.core.stages.stage_parts import Part
from stylesim.curation.sources.captions import read_caption
from stylesim.curation.sources.standard_columns import standard_columns
from stylesim.curation.stage import Stage
from stylesim.curation.tags.name_lists import make_tag
from stylesim.data.image_tables import TABLES, is_table, read_image_table
from stylesim.data.labels import is_missing, split_tags, without_decimals

TAG_COLUMNS = ("tags", "tag", "labels", "label")
"""Columns that hold tags; the first one that a table has is used."""
KINDS_OF_TAGS = {
    "artist": ("artist", "artists", "author", "painter"),
    "style": ("style", "styles"),
    "movement": ("movement",),
    "genre": ("genre",),
    "category": ("category", "categories"),
    "class": ("class", "classes", "class_name"),
}
"""The columns whose values become tags of a kind, such as `artist:claude monet`, in a table without `TAG_COLUMNS`."""

Row = dict[str, Any]

logger = logging.getLogger(__name__)


def folder(stage: Stage, *, path: str, rows: int = 10_000) -> dict[str, Any]:
    """Run stage 1 on a folder of images, or on a CSV, TSV or parquet file that names them.

    In a folder, the `.txt` file next to an image is its caption, and ids are relative paths. A table has a column
    `path` (or another of `PATH_COLUMNS`), relative to the table, and may have `caption` (or `text`), `url`, `content`,
    `aesthetic`, `nsfw` and `tags` (or another of `TAG_COLUMNS`: a list, or text separated by `|` or `;`). Without a
    column of tags, the values of other columns become tags of their kind (`KINDS_OF_TAGS`). A caption in Windows-1252
    is counted as `captions_not_utf8`; one of unknown encoding as `captions_unreadable`, and is left out.

    Args:
        stage: The folder to write to.
        path: The folder or table.
        rows: Images per part.

    Returns:
        The counts of the stage.

    Raises:
        ConfigError: If there is no folder and no table, if it contains no image, or if `rows` is less than 1.
        DataError: If the table cannot be read.
    """
    require_positive("source.rows", rows)
    root = Path(path).expanduser().absolute()
    if root.is_dir():
        files = visible_files(root)
        names = [printable(file.relative_to(root).as_posix()) for file in select_images(files, root)]
        images: list[Row] = [{"path": name} for name in names]
    elif root.is_file() and is_table(root):
        files, images, root = [root], _table_rows(root), root.parent
    else:
        raise ConfigError(f"source.path={path}: there is no folder and no table ({', '.join(TABLES)}) at {root}.")
    if not images:
        found = f", found {describe_suffixes(files)}" if files else ""
        raise ConfigError(f"source.path={path} contains no image; looked for {', '.join(EXTENSIONS)}{found}.")
    if (done := stage.begin(files=listing_digest(files, root))) is not None:
        return done
    pieces = [images[first : first + rows] for first in range(0, len(images), rows)]
    return stage.finish(stage.map_inputs(partial(_read_images, root=root), pieces))


def _table_rows(table: Path) -> list[Row]:
    """Return the rows of a table with lower-case columns; of several rows with the same path, the first.

    Tags are a list where they are known.
    """
    frame = read_image_table(table).drop_duplicates("path").astype(object)
    if column := next((name for name in TAG_COLUMNS if name in frame), None):
        frame["tags"] = _cells_as_tags(frame[column].tolist())
        return _as_rows(frame)
    kinds = {name: kind for kind, names in KINDS_OF_TAGS.items() for name in names if name in frame}
    if kinds:
        logger.info("%s: tags are made of the columns %s.", table, ", ".join(kinds))
        of_columns = [
            [[make_tag(kind, value) for value in values or []] for values in _cells_as_tags(frame[name].tolist())]
            for name, kind in kinds.items()
        ]
        frame["tags"] = [list(chain.from_iterable(row)) or None for row in zip(*of_columns, strict=True)]
    return _as_rows(frame)


def _cells_as_tags(column: list[Any]) -> list[list[str] | None]:
    """Return the tags of each cell; None where there are none."""
    cells = without_decimals(column)
    return [split_tags(cell) if isinstance(cell, str) or not is_missing(cell) else None for cell in cells]


def _as_rows(frame: pd.DataFrame) -> list[Row]:
    return frame.where(frame.notna().to_numpy(), None).to_dict("records")


def _read_images(rows: list[Row], root: Path) -> Part:
    images: list[Row] = []
    dropped: list[Row] = []
    counts: Counter[str] = Counter()
    for row in rows:
        name, file = printable(str(row["path"])), find_file(root, str(row["path"]))
        try:
            width, height = image_size(file)
        except CorruptSampleError as error:
            dropped.append({"id": name, "reason": f"not_an_image: {printable(str(error))}"})
            continue
        images.append(row | {"id": name, "image": printable(file), "width": width, "height": height})
        text_file = file.with_suffix(".txt")
        if not any(row.get(column) for column in ("caption", "text", "txt")) and text_file.is_file():
            images[-1]["caption"] = read_caption(text_file.read_bytes, counts)
    counts.update(rows=len(rows), images=len(images), not_an_image=len(dropped))
    columns = {name: [row.get(name) for row in images] for name in sorted({name for row in images for name in row})}
    table = standard_columns(pa.table(columns)) if images else pa.table({})
    if images:
        table = table.append_column("image", pa.array(columns["image"], pa.string()))
    return Part(table, counts, pa.Table.from_pylist(dropped) if dropped else None)
