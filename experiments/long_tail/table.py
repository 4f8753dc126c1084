"""Make a table from the run folders: `python experiments/long_tail/table.py FOLDER`.

Style Recall@1 on the whole validation split, averaged over the styles of each part of the distribution: the five most
frequent in training, the seven rarest, the seven between them, and all nineteen.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from make import TRAIN, ranked, style

from stylesim.data.shards.shard_samples import read_shards
from stylesim.report.run_folders import RunFolder, find_run_folders

PARTS = {"head": slice(0, 5), "middle": slice(5, 12), "tail": slice(12, 19), "all": slice(0, 19)}


def row(run: RunFolder, styles: dict[str, str]) -> dict[str, object]:
    """Return the setting of a run, and its Recall@1 for each part."""
    overrides = dict(
        override.split("=", 1) for override in (*run.encoder_overrides, *run.data_overrides) if "=" in override
    )
    queries = run.per_query("validation")
    assert queries is not None, f"{run.path} has not been evaluated."
    by_style = queries["recall@1"].groupby(styles).mean()
    order = ranked(set(styles.values()), int(overrides["seed"]))
    recall = {part: round(by_style[order[ranks]].mean(), 4) for part, ranks in PARTS.items()}
    return {"balance": overrides["data.balance"], "seed": int(overrides["seed"])} | recall


def main() -> None:
    styles = {sample.id: style(sample.tags) for sample in read_shards(TRAIN.parent / "validation", images=False)}
    rows = pd.DataFrame([row(run, styles) for run in find_run_folders(Path(sys.argv[1]))])
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    rows.sort_values(["balance", "seed"]).to_csv(results / "recall.csv", index=False)
    print(rows.groupby("balance")[[*PARTS]].agg(["mean", "min", "max"]).round(3).to_string())


if __name__ == "__main__":
    main()
