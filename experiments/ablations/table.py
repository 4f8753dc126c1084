"""Make a table and a plot from the run folders of the ablations, next to the paper's trend (its table 4).

    python experiments/ablations/table.py multirun/ablations

Each row is one setting, with mean, minimum and maximum over its seeds. The setting of a run is read from its overrides.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from stylesim.report.run_folders import RunFolder, find_run_folders

RESULTS = Path(__file__).parent / "results"
METRICS = {
    "style": "unseen_contents recall@1",
    "content": "unseen_contents content_recall@1",
    "unseen styles": "unseen_styles recall@1",
}
# The paper's mAP@1 on WikiArt, ViT-B (arXiv 2404.01292, table 4); its default is lambda = 0.2, tau = 0.1.
PAPER = {
    "lambda": {"inf": 49.1, "1": 52.3, "0.2": 56.2, "0.1": 54.9, "0": 51.8},
    "tau": {"0.01": 55.1, "0.1": 56.2, "0.5": 42.3, "1": 36.2},
    "start": {"CLIP ViT-B": 56.2, "CLIP RN50": 51.8, "DINO ViT-B": 49.8, "SSCD RN50": 33.2},
}
DEFAULTS = {"lambda": "0.2", "tau": "0.1", "start": "imagenet"}


def setting(run: RunFolder) -> dict[str, str]:
    """Return the setting of a run."""
    overrides = dict(override.split("=", 1) for override in run.encoder_overrides if "=" in override)
    ssl_only = overrides.get("loss.supervised_weight") in ("0", "0.0")
    return {
        "lambda": "inf" if ssl_only else overrides.get("loss.ssl_weight", DEFAULTS["lambda"]),
        "tau": overrides.get("loss.temperature", DEFAULTS["tau"]),
        "start": overrides.get("model.weights", DEFAULTS["start"]),
    }


def table(runs: Sequence[RunFolder]) -> pd.DataFrame:
    """Return a row for each setting: `seeds`, and mean, minimum and maximum of each metric, in [0, 1]."""
    rows = []
    for run in runs:
        metrics = {name: run.metrics[key.split()[0]][key.split()[1]] for name, key in METRICS.items()}
        rows.append(setting(run) | metrics)
    groups = pd.DataFrame(rows).groupby([*DEFAULTS], sort=False)
    rows_by_setting = groups[[*METRICS]].agg(["mean", "min", "max"])
    rows_by_setting.columns = [" ".join(column) for column in rows_by_setting.columns]
    rows_by_setting.insert(0, "seeds", groups.size())
    return rows_by_setting.reset_index()


def varied(results: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows that differ from the paper's default in `name` only, in the order of the paper's table."""
    others = [other for other in DEFAULTS if other != name]
    rows = results[(results[others] == [DEFAULTS[other] for other in others]).all(axis=1)]
    order = list(PAPER[name]) if name != "start" else ["imagenet", "random"]
    return rows.set_index(name).reindex(order).dropna(subset=["seeds"])


def plot(results: pd.DataFrame, path: Path) -> None:
    """Plot StyleCross above, with the range of its seeds, and the paper below; one column per varied setting."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(11, 5.2), layout="constrained", sharey="row")
    for column, name in enumerate(DEFAULTS):
        rows, stylecross, paper = varied(results, name), axes[0, column], axes[1, column]
        for place, (value, row) in enumerate(rows.iterrows()):
            colour = "#1f4e79" if value == DEFAULTS[name] else "#8fb4d9"
            stylecross.bar(place, row["style mean"], color=colour)
            stylecross.vlines(place, row["style min"], row["style max"], color="black", linewidth=1.5)
            stylecross.text(place, row["style max"] + 0.01, f"{row['style mean']:.3f}", ha="center", fontsize=8)
        stylecross.set_xticks(range(len(rows)), rows.index.astype(str), fontsize=8)
        stylecross.set_title(
            {"lambda": "weight of SSL, lambda", "tau": "temperature", "start": "initial weights"}[name]
        )
        values = PAPER[name]
        best = max(values, key=lambda key: values[key])
        colours = ["#7a4a12" if key == best else "#dcb98a" for key in values]
        paper.bar(range(len(values)), list(values.values()), color=colours)
        for place, value in enumerate(values.values()):
            paper.text(place, value + 0.8, f"{value:.1f}", ha="center", fontsize=8)
        paper.set_xticks(range(len(values)), list(values), fontsize=8)
    axes[0, 0].set_ylabel("StyleCross: style Recall@1,\nunseen contents")
    axes[1, 0].set_ylabel("paper: mAP@1 in %,\nWikiArt, ViT-B, 80k steps")
    axes[0, 0].set_ylim(0, 1)
    axes[1, 0].set_ylim(0, 70)
    figure.savefig(path, dpi=110)


def main(folder: str) -> None:
    results = table([run for run in find_run_folders(Path(folder)) if run.metrics])
    RESULTS.mkdir(exist_ok=True)
    results.round(4).to_csv(RESULTS / "ablations.csv", index=False)
    plot(results, RESULTS / "ablations.png")
    print(results.round(3).to_string(index=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
