"""python -m stylesim.pack: a folder or a table of images into indexed shards."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from stylesim.runtime.launch import run


def main(cfg: DictConfig) -> dict[str, float]:
    """Pack `cfg.source` into `cfg.out`; interrupted, the same command goes on. Returns counts, damaged images included.

    Raises:
        StylesimError: If there is no image, or `cfg.out` holds something else.
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
        processes=cfg.processes,
    )
    for name, reason in damaged:
        print(f"left out {name}: {reason}", file=sys.stderr)
    index = load_index(Root(str(cfg.out), "out"))
    print(f"packed {cfg.source} into {cfg.out}: {index}; {len(damaged)} damaged images were left out")
    return {"images": index.count, "shards": len(index.shards), "damaged": len(damaged)}


if __name__ == "__main__":
    run("pack")
