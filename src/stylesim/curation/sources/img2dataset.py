"""Read what img2dataset has written: tars or folders of images, each with a table of what happened to every URL."""

# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stylesim.core.errors import ConfigError
from stylesim.core.file_names import find_file, printable
from stylesim.core.image_folders import is_image_file, is_visible, visible_files
from stylesim.core.images import EXTENSIONS
from stylesim.core.stages.stage import listing_digest
from stylesim.core.stages.stage_parts import Part
from stylesim.curation.sources.captions import read_caption
from stylesim.curation.sources.standard_columns import standard_columns
from stylesim.curation.stage import Stage
from stylesim.curation.tar_members import TarMembers

_DAMAGE = (OSError, EOFError, ValueError, RecursionError, zlib.error)
REASONS = {"failed_to_download": "dead_url", "failed_to_resize": "not_an_image"}
"""The statuses of img2dataset, and their names in the counts."""


def img2dataset(stage: Stage, *, path: str) -> dict[str, Any]:
    """Run stage 1 on images that img2dataset has written as `00000.tar` or `00000/`, each of which becomes a part.

    The table next to a tar (`00000.parquet`) tells what happened to its URLs; without it, the `.json` and `.txt` of
    each image are read. Captions, sizes and additional columns (`id`, `aesthetic`, `tags`, ...) are taken over.

    Args:
        stage: The folder to write to.
        path: The output folder of img2dataset, or a folder that contains several of them.

    Returns:
        The counts of the stage.

    Raises:
        ConfigError: If there is no tar and no folder of images.
    """
    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        raise ConfigError(f"source.path={path}: there is no folder at {root}.")
    files = [file for file in visible_files(root) if file.suffix != ".partial"]
    if (done := stage.begin(files=listing_digest(files, root))) is not None:
        return done
    return stage.finish(read_downloads(stage, root))


def read_downloads(stage: Stage, root: Path) -> Counter[str]:
    """Write the parts of all tars and folders of images below `root`, ordered by name, and return their counts.

    Raises:
        ConfigError: If there is no tar and no folder of images.
    """
    files = visible_files(root)
    tars = [file for file in files if file.name.lower().endswith((".tar", ".tar.gz"))]
    folders = {file.parent for file in files if is_image_file(file)}
    shards = sorted([*tars, *folders])
    if not shards:
        raise ConfigError(f"{root} contains no tar and no folder of images, which img2dataset would have written.")
    several = len({shard.parent for shard in shards}) > 1
    return stage.map_inputs(partial(_read_shard, root=root if several else None), shards)


def _read_shard(shard: Path, root: Path | None) -> Part:
    counts: Counter[str] = Counter()
    read: Callable[[str], bytes]
    if shard.is_dir():
        visible = sorted(printable(name) for name in os.listdir(shard) if is_visible(name))
        names, locate, read = visible, partial(_locate_file, shard), partial(_read_file, shard)
    else:
        tar = TarMembers(shard)
        names = [name for name in tar.names() if is_visible(name.rpartition("/")[2])]
        locate, read = tar.locator, tar.read
        counts["damaged_tars"] = not tar.complete
    images = {name.rpartition(".")[0]: name for name in names if name.lower().endswith(EXTENSIONS)}
    table = _read_url_table(shard.parent / f"{shard.name.split('.')[0]}.parquet")
    if table is None:
        table = _table_from_members(images, set(names), read, counts)
    table = table.sort_by("key")
    keys = table["key"].to_pylist()
    reasons = _failures(table, keys, images)
    rows = standard_columns(table)
    if root is not None:  # several downloads use the same keys
        prefix = printable(Path(os.path.relpath(shard.parent, root)).as_posix())
        rows = rows.set_column(0, "id", pa.array([f"{prefix}/{id}" for id in rows["id"].to_pylist()]))
    locators = pa.array([locate(images[key]) if key in images else None for key in keys], pa.string())
    present = pa.array([reason is None for reason in reasons])
    counts.update(reason.partition(":")[0] for reason in reasons if reason)
    counts += Counter(rows=len(keys), images=pc.sum(present).as_py() or 0)
    dropped = pa.table({"id": rows["id"], "reason": pa.array(reasons, pa.string())}).filter(pc.invert(present))
    return Part(rows.append_column("image", locators).filter(present), counts, dropped if len(dropped) else None)


def _failures(table: pa.Table, keys: list[str], images: Iterable[str]) -> list[str | None]:
    """Return why each image is missing; None if it is there."""
    nothing = [None] * len(keys)
    status = table["status"].to_pylist() if "status" in table.column_names else nothing
    messages = table["error_message"].to_pylist() if "error_message" in table.column_names else nothing
    failures = [s if s != "success" else None for s in status]  # null, without a table, is not a failure either
    return [
        f"{REASONS.get(s, s)}: {message}" if s else None if key in images else "missing: not in its tar"
        for key, s, message in zip(keys, failures, messages, strict=True)
    ]


def _read_url_table(path: Path) -> pa.Table | None:
    """Read the table that img2dataset writes next to a tar; None if it is missing or unfinished."""
    try:
        with path.open("rb") as file:  # pyarrow itself opens no path that is not UTF-8
            table = pq.ParquetFile(file).read()
    except (pa.ArrowException, OSError):
        return None
    return table if "key" in table.column_names else None


def _table_from_members(
    images: Iterable[str], names: set[str], read: Callable[[str], bytes], counts: Counter[str]
) -> pa.Table:
    """Make such a table from the `.json` and `.txt` of each image."""
    rows = []
    for key in images:
        row: dict[str, Any] = {}
        # Without its caption, the image itself is still usable.
        caption = read_caption(partial(read, f"{key}.txt"), counts) if f"{key}.txt" in names else None
        with suppress(*_DAMAGE):
            row = json.loads(read(f"{key}.json")) if f"{key}.json" in names else {}
        rows.append({"caption": caption} | (row if isinstance(row, dict) else {}) | {"key": key})
    columns = sorted({name for row in rows for name in row} | {"key"})
    return pa.table({name: _make_column(name, [row.get(name) for row in rows]) for name in columns})


def _make_column(name: str, values: list[Any]) -> pa.Array:
    """Make a column of JSON values; if their types differ from row to row, it is text."""
    try:
        return pa.array(values, pa.string() if name == "key" else None)
    except pa.ArrowException:
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _locate_file(folder: Path, name: str) -> str:
    return printable(folder / name)


def _read_file(folder: Path, name: str) -> bytes:
    return find_file(folder, name).read_bytes()
