"""StyleCross with an artificial long tail: `python experiments/long_tail/make.py --out FOLDER --seed 0`.

The seed orders the 19 seen styles; the r-th keeps `--head` / r^`--power` of its training pictures (as many as it has,
four at least), drawn by the hash of their keys. The pictures are copied as they are, with an index.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_samples import read_shards
from stylesim.data.shards.shard_writer import ShardWriter

TRAIN = Path(__file__).parents[2] / "data/stylecross/train"


def digest(*words: object) -> bytes:
    return hashlib.sha1(" ".join(map(str, words)).encode()).digest()


def style(tags: list[str]) -> str:
    return next(tag for tag in tags if tag.startswith("set:"))


def ranked(styles: set[str], seed: int) -> list[str]:
    """The styles from the most frequent to the rarest one."""
    return sorted(styles, key=lambda name: digest(seed, name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--head", type=int, default=190)
    parser.add_argument("--power", type=float, default=1.3)
    given = parser.parse_args()
    items = list(read_shards(TRAIN))
    with ShardWriter(given.out, size=200) as writer:
        chosen = []
        for rank, name in enumerate(ranked({style(item.tags) for item in items}, given.seed), 1):
            pictures = sorted((item for item in items if style(item.tags) == name), key=lambda item: digest(item.id))
            kept = pictures[: max(4, round(given.head / rank**given.power))]
            print(f"{name}: {len(kept)} of {len(pictures)}")
            chosen += kept
        for item in sorted(chosen, key=lambda item: digest(given.seed, item.id)):
            assert isinstance(item.image, bytes)
            labels = {"tags": item.tags, "content": item.content}
            writer.write(item.id.rpartition("/")[2], item.image, labels, extension="webp")
    index_shards(given.out, show=False)


if __name__ == "__main__":
    main()
