"""Index the shards of a folder, or verify an index against its files.

    stylesim index folder=/my/shards
    stylesim index folder=/my/shards verify=true    are they still the files that were indexed?

Count, size and digest of every shard and the tags of all images are written to index.json beside the shards.
"""

from __future__ import annotations

import logging

from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from stylesim.runtime.launch import run
from stylesim.runtime.settings import CommandSettings

log = logging.getLogger(__name__)


class Settings(CommandSettings):
    """The keys of `stylesim index`."""

    folder: str = Field(description="A folder of .tar or .tar.gz shards.")
    processes: PositiveInt | None = Field(None, description="Shards read at once; null is one per core.")
    verify: bool = Field(False, description="Compare an existing index with the files, digests included.")


def main(cfg: DictConfig) -> dict[str, float]:
    """Write `index.json` into `cfg.folder`, or with `cfg.verify` compare it with the files, and return counts.

    Raises:
        DataError: If there are no shards, or a file is not the one that was indexed.
    """
    from stylesim.data.roots import Root
    from stylesim.data.shards.indexing import index_shards
    from stylesim.data.shards.shard_index import INDEX, load_index, verify_digests

    root = Root(str(cfg.folder), "folder")
    problems = [] if cfg.verify else index_shards(cfg.folder, processes=cfg.processes)
    index = load_index(root)
    if cfg.verify:
        verify_digests(index)
    print(f"{index}: {root.url(INDEX)}")
    for problem in problems:
        log.warning("%s", problem)
    return {"images": index.count, "shards": len(index.shards), "tags": len(index.tags), "problems": len(problems)}


if __name__ == "__main__":
    run("index")
