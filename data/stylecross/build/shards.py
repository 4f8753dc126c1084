"""Write the splits as gzipped WebDataset shards of nearly equal size, with their index and the digest of all."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from render import Rasters, encode
from rich.progress import track
from splits import SPLITS, Split

from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_writer import ShardWriter

SHARDS = {"train": 8, "validation": 2, "unseen_contents": 2, "unseen_styles": 2}


def write_splits(
    folder: Path, splits: dict[str, Split], rasters: Rasters, infos: dict[str, Any], processes: int
) -> None:
    """Write `folder/<split>/<number>.tar.gz` and `index.json` again; the same images give the same bytes."""
    for name, members in splits.items():
        shutil.rmtree(folder / name, ignore_errors=True)
        flat = [rasters[style.name][content] for style, content in members]
        size = math.ceil(len(members) / SHARDS[name])
        with (
            ProcessPoolExecutor(processes) as pool,
            ShardWriter(folder / name, size=size, suffix=".tar.gz") as writer,
        ):
            encoded = track(pool.map(encode, flat, chunksize=32), f"Encode {name}", len(flat))
            for (style, content), image in zip(members, encoded, strict=True):
                tags = [f"set:{style.name}", f"family:{style.family}", f"manner:{style.manner}"]
                credit = {key: infos[style.name][key] for key in ("licence", "author")}
                labels = {"tags": tags, "content": content, **credit}
                writer.write(f"{style.name}_{content}", image, labels, extension="webp")
        problems = index_shards(folder / name)
        assert not problems, problems


def digest(folder: Path) -> str:
    """Return the sha256 over the lines `<split>/<shard> <sha256>` of the four indices."""
    lines = []
    for split in SPLITS:
        for shard in json.loads((folder / split / "index.json").read_text())["shards"]:
            lines.append(f"{split}/{shard['name']} {shard['sha256']}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()
