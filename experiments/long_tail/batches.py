"""Measure the composition of the batches, without training: `python experiments/long_tail/batches.py FOLDER SEED`.

Sixty micro-batches of 64 from the shards of `make.py`, read without decoding an image: the share of images of the
seven rarest styles, how many of these images have another image of their style in the batch, and how often each rare
image that occurs is shown.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd
from make import ranked, style

from stylesim.data.modules import ShardDataModule
from stylesim.data.sample import Sample
from stylesim.data.sampling.planned_source import read_balanced, read_in_order
from stylesim.data.views import TwoViews

BATCH, STEPS = 64, 60


def batches(module: ShardDataModule) -> Iterator[list[Sample]]:
    """Yield the samples of each micro-batch of one process."""
    (planned,) = module.planned_sources(1)
    columns = {tag: column for column, tag in enumerate(module.vocabulary)}
    for epoch in range(STEPS):
        if planned.strategy is None:
            samples = read_in_order(planned, epoch, 0, 0)
            yield from (list(islice(samples, BATCH)) for _ in range(planned.plan.steps))
        else:
            yield from read_balanced(planned, epoch, 0, 0, lambda sample: [columns[style(sample.tags)]])


def row(root: Path, seed: int, balance: str | None) -> dict[str, object]:
    """Return the metrics of one way to choose the images of a batch."""
    module = ShardDataModule(
        str(root), batch_size=BATCH, views=TwoViews(32), seed=seed, workers=0, balance=balance, tags=["set:*"]
    )
    tail = set(ranked(set(module.vocabulary), seed)[12:])
    shown, places, partnered = Counter(), 0, 0
    for samples in islice(batches(module), STEPS):
        styles = Counter(style(sample.tags) for sample in samples)
        shown.update(sample.id for sample in samples if style(sample.tags) in tail)
        places += len(samples)
        partnered += sum(count for name, count in styles.items() if name in tail and count > 1)
    found = {"tail": shown.total() / places, "with a partner": partnered / shown.total()}
    return {"balance": balance} | found | {"times shown": shown.total() / len(shown), "images": len(shown)}


def main() -> None:
    root, seed = Path(sys.argv[1]), int(sys.argv[2])
    rows = [row(root, seed, balance) for balance in (None, "inverse_frequency", "16x4")]
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
