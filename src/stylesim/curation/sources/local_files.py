"""Read a user's own images: a folder, or a table that names the files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from stylesim.core.errors import ConfigError, CorruptSampleError
from stylesim.core.image_folders import is_image_file, visible_files
from stylesim.core.images import EXTENSIONS, image_size
from stylesim.curation.sources.standard_columns import standard_columns
from stylesim.curation.stage import Part, Stage, listing_digest, require_positive
from stylesim.data.image_tables import TABLES, read_image_table, split_tags

Row = dict[str, Any]


def folder(stage: Stage, *, path: str, rows: int = 10_000) -> dict[str, Any]:
    """Run stage 1 on a folder of images, or on a CSV, TSV or parquet file that names them.

    In a folder, the `.txt` file next to an image is its caption, and ids are relative paths. A table has a column
    `path` (or `image`, `name`, `file`), relative to the table, and may have `caption` (or `text`), `url`, `content`,
    `aesthetic`, `nsfw` and `tags` (a list, or text separated by `|` or `;`).

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
        images: list[Row] = [{"path": file.relative_to(root).as_posix()} for file in files if is_image_file(file)]
    elif root.is_file() and root.suffix in TABLES:
        files, images, root = [root], _table_rows(root), root.parent
    else:
        raise ConfigError(f"source.path={path}: there is no folder and no table ({', '.join(TABLES)}) at {root}.")
    if not images:
        raise ConfigError(f"source.path={path} contains no image; looked for {', '.join(EXTENSIONS)}.")
    if (done := stage.begin(files=listing_digest(files, root))) is not None:
        return done
    pieces = [images[first : first + rows] for first in range(0, len(images), rows)]
    return stage.finish(stage.map_inputs(partial(_read_images, root=root), pieces))


def _table_rows(table: Path) -> list[Row]:
    """Return the rows of a table with lower-case columns; of several rows with the same path, the first."""
    frame = read_image_table(table).drop_duplicates("path").astype(object)
    return frame.where(frame.notna().to_numpy(), None).to_dict("records")  # type: ignore[return-value]


def _read_images(rows: list[Row], root: Path) -> Part:
    images: list[Row] = []
    dropped: list[Row] = []
    for row in rows:
        name, file = str(row["path"]), root / str(row["path"])
        try:
            width, height = image_size(file)
        except CorruptSampleError as error:
            dropped.append({"id": name, "reason": f"not_an_image: {error}"})
            continue
        images.append(row | {"id": name, "image": str(file), "width": width, "height": height})
        text_file = file.with_suffix(".txt")
        if not any(row.get(column) for column in ("caption", "text", "txt")) and text_file.is_file():
            images[-1]["caption"] = text_file.read_text(encoding="utf-8", errors="replace").strip()
        if isinstance(tags := row.get("tags"), str):
            images[-1]["tags"] = split_tags(tags)
    counts = {"rows": len(rows), "images": len(images), "not_an_image": len(dropped)}
    columns = {name: [row.get(name) for row in images] for name in sorted({name for row in images for name in row})}
    table = standard_columns(pa.table(columns)) if images else pa.table({})
    if images:
        table = table.append_column("image", pa.array(columns["image"], pa.string()))
    return Part(table, counts, pa.Table.from_pylist(dropped) if dropped else None)
