"""Write small shards and image files, and damage them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_writer import ShardWriter


def encoded_image(number: int, width: int = 40, height: int = 30, kind: str = "JPEG") -> bytes:
    """Return an encoded image of soft random colours."""
    colours = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(colours).resize((width, height)).save(out, kind)
    return out.getvalue()


def write_root(folder: Path, count: int = 40, *, size: int = 7, suffix: str = ".tar", tags: int = 3) -> Path:
    """Write shards of `count` images with the tag `set:<number % tags>`, and their index."""
    with ShardWriter(folder, size=size, suffix=suffix) as writer:
        for number in range(count):
            labels = {"tags": [f"set:{number % tags}"], "content": f"c{number // tags}"}
            writer.write(f"{number:05d}", encoded_image(number), labels)
    index_shards(folder, show=False)
    return folder


def write_tar(path: Path, members: dict[str, bytes | dict]) -> Path:
    """Write a tar of these members; a dict is written as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            data = json.dumps(content).encode() if isinstance(content, dict) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def edit_index(root: Path, **changes: object) -> None:
    """Overwrite entries of the first shard in a root's index."""
    index = json.loads((root / "index.json").read_text())
    index["shards"][0].update(changes)
    (root / "index.json").write_text(json.dumps(index))
