"""Stage 1 from images of one's own: a folder, or a table that names the files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from stylesim.core.errors import StylesimError
from stylesim.core.image_folders import is_image_file, visible_files
from stylesim.core.images import EXTENSIONS, FORMATS
from stylesim.curation.sources.columns import ours
from stylesim.curation.stage import Piece, Stage, digest_of
from stylesim.data.image_tables import TABLES, read_image_table, split_tags

Row = dict[str, Any]


def folder(stage: Stage, *, path: str, rows: int = 10_000) -> dict[str, Any]:
    """Stage 1 from a folder of images, or a CSV, TSV or parquet file of them.

    In a folder, the `.txt` beside an image is its caption, and ids are paths below it. A table has a column `path` (or
    `image`, `name`, `file`), relative to the table, and may have `caption` (or `text`), `url`, `content`, `aesthetic`,
    `nsfw` and `tags` (a list, or text separated by `|` or `;`). `rows` images make a part.

    Raises:
        StylesimError: If there is neither, or no image in it.
    """
    root = Path(path).expanduser().absolute()
    if root.is_dir():
        files = visible_files(root)
        names = [file.relative_to(root).as_posix() for file in files if is_image_file(file)]
        found: list[Row] = [{"path": name} for name in names]
    elif root.is_file() and root.suffix in TABLES:
        files, found, root = [root], _rows(root), root.parent
    else:
        raise StylesimError(f"source.path={path}: there is no folder and no table ({', '.join(TABLES)}) at {root}.")
    if not found:
        raise StylesimError(f"source.path={path}: there is no image in it; looked for {', '.join(EXTENSIONS)}.")
    if (done := stage.begin(files=digest_of(files, root))) is not None:
        return done
    pieces = [found[first : first + rows] for first in range(0, len(found), rows)]
    return stage.finish(stage.each(partial(_read, root=root), pieces))


def _rows(table: Path) -> list[Row]:
    """The rows of a table, its columns in lower case; a path that comes again counts once."""
    frame = read_image_table(table).drop_duplicates("path").astype(object)
    return frame.where(frame.notna().to_numpy(), None).to_dict("records")  # type: ignore[return-value]


def _read(rows: list[Row], root: Path) -> Piece:
    kept: list[Row] = []
    dropped: list[Row] = []
    for row in rows:
        name, file = str(row["path"]), root / str(row["path"])
        try:
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
        except Exception as error:  # PIL raises nearly everything on a broken file
            dropped.append({"id": name, "reason": f"not_an_image: {type(error).__name__}"})
            continue
        kept.append(row | {"id": name, "image": str(file), "width": width, "height": height})
        beside = file.with_suffix(".txt")
        if not any(row.get(column) for column in ("caption", "text", "txt")) and beside.is_file():
            kept[-1]["caption"] = beside.read_text(encoding="utf-8", errors="replace").strip()
        if isinstance(tags := row.get("tags"), str):
            kept[-1]["tags"] = split_tags(tags)
    counts = {"rows": len(rows), "images": len(kept), "not_an_image": len(dropped)}
    columns = {name: [row.get(name) for row in kept] for name in sorted({name for row in kept for name in row})}
    table = ours(pa.table(columns)) if kept else pa.table({})
    if kept:
        table = table.append_column("image", pa.array(columns["image"], pa.string()))
    return Piece(table, counts, pa.Table.from_pylist(dropped) if dropped else None)
