"""Write StyleCross with an artificial long tail: `python experiments/long_tail/make.py --out FOLDER --seed 0`.

The seed orders the 19 seen styles; the r-th keeps `--head` / r^`--power` of its training images (at least four, at most
all of them), chosen by the hash of their keys. The images are copied unchanged, with an index.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_samples import read_shards
from stylesim.data.shards.shard_writer import ShardWriter

TRAIN = Path(__file__).parents[2] / "data/stylecross/train"


def digest(*parts: object) -> bytes:
    return hashlib.sha1(" ".join(map(str, parts)).encode()).digest()


def style(tags: list[str]) -> str:
    return next(tag for tag in tags if tag.startswith("set:"))


def ranked(styles: set[str], seed: int) -> list[str]:
    """Return the styles from the most frequent to the rarest."""
    return sorted(styles, key=lambda name: digest(seed, name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--head", type=int, default=190)
    parser.add_argument("--power", type=float, default=1.3)
    args = parser.parse_args()
    samples = list(read_shards(TRAIN))
    with ShardWriter(args.out, size=200) as writer:
        chosen = []
        for rank, name in enumerate(ranked({style(sample.tags) for sample in samples}, args.seed), 1):
            of_style = [sample for sample in samples if style(sample.tags) == name]
            of_style.sort(key=lambda sample: digest(sample.id))
            kept = of_style[: max(4, round(args.head / rank**args.power))]
            print(f"{name}: {len(kept)} of {len(of_style)}")
            chosen += kept
        for sample in sorted(chosen, key=lambda sample: digest(args.seed, sample.id)):
            assert isinstance(sample.image, bytes)
            labels = {"tags": sample.tags, "content": sample.content}
            writer.write(sample.id.rpartition("/")[2], sample.image, labels, extension="webp")
    index_shards(args.out, show=False)


if __name__ == "__main__":
    main()
