"""Pack a folder or a table of images into shuffled, indexed WebDataset shards.

    stylesim pack source=/my/images out=/my/shards
    stylesim pack source=my.csv out=/my/shards max_size=384 'tags=[artist:*]'

After an interruption, the same command continues with the shards that are missing.
"""

from __future__ import annotations

import logging
from typing import Literal

from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from stylesim.runtime.launch import run
from stylesim.runtime.settings import CommandSettings

log = logging.getLogger(__name__)


class Settings(CommandSettings):
    """The keys of `stylesim pack`."""

    source: str = Field(
        description="A folder with one sub-folder per label, or a CSV, TSV or parquet file of paths and tags."
    )
    out: str = Field(description="The folder for the shards and their index.json.")
    shard_size: PositiveInt = Field(5000, description="Images per shard.")
    max_size: PositiveInt | None = Field(None, description="Scale images down to this short side, in px.")
    tags: str | list[str] = Field(["*"], description="Globs of the tags to keep.")
    colour: Literal["srgb", "raw"] = Field(
        "srgb", description="Colour profiles of images that are converted: srgb applies them, raw drops them."
    )
    accept_damaged: bool = Field(False, description="Pack what can be decoded of damaged JPEGs and PNGs.")
    gzip: bool = Field(False, description="Write .tar.gz.")
    processes: PositiveInt | None = Field(None, description="Shards written at once; null is one per core.")


def main(cfg: DictConfig) -> dict[str, float]:
    """Pack `cfg.source` into `cfg.out` and return counts, that of damaged images included.

    Raises:
        DataError: If there is no image, or `cfg.out` holds something else.
    """
    from stylesim.data.roots import Root
    from stylesim.data.shards.packing import pack
    from stylesim.data.shards.shard_index import load_index

    damaged = pack(
        cfg.source,
        cfg.out,
        shard_size=cfg.shard_size,
        max_size=cfg.max_size,
        tags=[cfg.tags] if isinstance(cfg.tags, str) else list(cfg.tags),
        suffix=".tar.gz" if cfg.gzip else ".tar",
        colour=cfg.colour,
        accept_damaged=cfg.accept_damaged,
        processes=cfg.processes,
    )
    for name, reason in damaged:
        log.warning("left out %s: %s", name, reason)
    index = load_index(Root(str(cfg.out), "out"))
    print(f"packed {cfg.source} into {cfg.out}: {index}; {len(damaged)} damaged images left out")
    return {"images": index.count, "shards": len(index.shards), "damaged": len(damaged)}


if __name__ == "__main__":
    run("pack")
