"""What img2dataset has left on disk: tars, or folders of files, each with a table of what became of every URL."""

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

from stylesim.core.errors import StylesimError
from stylesim.core.image_folders import is_image_file, visible_files
from stylesim.core.images import EXTENSIONS
from stylesim.curation.sources.columns import ours
from stylesim.curation.stage import Piece, Stage, digest_of
from stylesim.curation.tar_members import Tar

_BROKEN = (OSError, EOFError, ValueError, RecursionError, zlib.error)
REASONS = {"failed_to_download": "dead_url", "failed_to_resize": "not_an_image"}
"""img2dataset's status, and what it is called in the counts."""


def img2dataset(stage: Stage, *, path: str) -> dict[str, Any]:
    """Stage 1 from images that img2dataset has written: `00000.tar` or `00000/`, one part for each.

    The table beside a tar (`00000.parquet`) says what became of its URLs; without it the `.json` and `.txt` of each
    image do. Captions, sizes and whatever was saved along (`id`, `aesthetic`, `tags`, ...) are taken over.

    Raises:
        StylesimError: If there is no tar and no folder of images.
    """
    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        raise StylesimError(f"source.path={path}: there is no folder at {root}.")
    files = [file for file in visible_files(root) if file.suffix != ".partial"]
    if (done := stage.begin(files=digest_of(files, root))) is not None:
        return done
    return stage.finish(read_downloads(stage, root))


def read_downloads(stage: Stage, root: Path) -> Counter[str]:
    """The parts of all tars and folders of images below `root`, in the order of their names."""
    files = visible_files(root)
    tars = [file for file in files if file.name.endswith((".tar", ".tar.gz"))]
    folders = {file.parent for file in files if is_image_file(file)}
    shards = sorted([*tars, *folders])
    if not shards:
        raise StylesimError(f"{root} holds no tar and no folder of images, which img2dataset would have left there.")
    several = len({shard.parent for shard in shards}) > 1
    return stage.each(partial(_read_shard, root=root if several else None), shards)


def _read_shard(shard: Path, root: Path | None) -> Piece:
    counts: Counter[str] = Counter()
    read: Callable[[str], bytes]
    if shard.is_dir():
        visible = sorted(name for name in os.listdir(shard) if not name.startswith("."))
        names, locate, read = visible, partial(os.path.join, shard), partial(_read_file, shard)
    else:
        tar = Tar(shard)
        names, locate, read = tar.names(), tar.locator, tar.read
        counts["damaged_tars"] = not tar.whole
    images = {name.rpartition(".")[0]: name for name in names if name.lower().endswith(EXTENSIONS)}
    table = _table(shard.parent / f"{shard.name.split('.')[0]}.parquet")
    if table is None:
        table = _by_members(images, set(names), read)
    table = table.sort_by("key")
    keys = table["key"].to_pylist()
    status = table["status"].to_pylist() if "status" in table.column_names else [None] * len(keys)
    messages = table["error_message"].to_pylist() if "error_message" in table.column_names else [None] * len(keys)
    failures = [s if s != "success" else None for s in status]  # without a table, null is no failure either
    reasons = [
        f"{REASONS.get(s, s)}: {message}" if s else None if key in images else "missing: not in its tar"
        for key, s, message in zip(keys, failures, messages, strict=True)
    ]
    kept = ours(table)
    if root is not None:  # keys of several downloads are alike
        prefix = Path(os.path.relpath(shard.parent, root)).as_posix()
        kept = kept.set_column(0, "id", pa.array([f"{prefix}/{id}" for id in kept["id"].to_pylist()]))
    located = pa.array([locate(images[key]) if key in images else None for key in keys], pa.string())
    chosen = pa.array([reason is None for reason in reasons])
    counts.update(reason.partition(":")[0] for reason in reasons if reason)
    counts += Counter(rows=len(keys), images=pc.sum(chosen).as_py() or 0)
    dropped = pa.table({"id": kept["id"], "reason": pa.array(reasons, pa.string())}).filter(pc.invert(chosen))
    return Piece(kept.append_column("image", located).filter(chosen), counts, dropped if len(dropped) else None)


def _table(path: Path) -> pa.Table | None:
    """The table that img2dataset writes beside a tar; None where there is none, or one that was never finished."""
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError):
        return None
    return table if "key" in table.column_names else None


def _by_members(images: Iterable[str], names: set[str], read: Callable[[str], bytes]) -> pa.Table:
    """The same from the `.json` and `.txt` of each image."""
    rows = []
    for key in images:
        row: dict[str, Any] = {}
        caption = None
        with suppress(*_BROKEN):  # the image is still an image
            caption = read(f"{key}.txt").decode("utf-8", "replace").strip() if f"{key}.txt" in names else None
        with suppress(*_BROKEN):
            row = json.loads(read(f"{key}.json")) if f"{key}.json" in names else {}
        rows.append({"caption": caption} | (row if isinstance(row, dict) else {}) | {"key": key})
    columns = sorted({name for row in rows for name in row} | {"key"})
    return pa.table({name: _column(name, [row.get(name) for row in rows]) for name in columns})


def _column(name: str, values: list[Any]) -> pa.Array:
    """Values of JSON, whose types may differ from row to row: then they are text."""
    try:
        return pa.array(values, pa.string() if name == "key" else None)
    except pa.ArrowException:
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _read_file(folder: Path, name: str) -> bytes:
    return (folder / name).read_bytes()
