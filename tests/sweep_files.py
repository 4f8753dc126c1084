"""Run folders of a sweep of evaluations, as its jobs leave them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

QUERIES = 60


def hits(recall: float, seed: int = 0) -> np.ndarray:
    """The recall@1 of each query: 1 for exactly this share of them, else 0."""
    return np.random.default_rng(seed).permutation(np.arange(QUERIES) < recall * QUERIES).astype(float)


def write_run(
    folder: Path, model: str, data: str, recall: float | None, *more: str, sets: tuple[str, ...] = (), error: str = ""
) -> Path:
    """Write a run folder; without `recall` the run has not finished."""
    (folder / ".hydra").mkdir(parents=True)
    task = [f"model={model}", f"data={data}", "data.root=/x", *more]
    hydra = {"hydra": {"runtime": {"choices": {"model": model, "data": data}}, "overrides": {"task": task}}}
    OmegaConf.save(hydra, folder / ".hydra" / "hydra.yaml")
    if error:
        (folder / "error.txt").write_text(f"{error}\n")
    if recall is not None:
        tables = []
        metrics: dict[str, float] = {"control/wikiart/recall@1": 0.1}
        for name in sets or (data,):
            values = hits(recall, seed=len(model))
            tables.append(
                pd.DataFrame(
                    {"encoder": "model", "set": name, "id": [f"q{i}" for i in range(QUERIES)]}
                    | {"recall@1": values, "paper_map@1": values}
                )
            )
            metrics |= {f"{name}/recall@1": float(values.mean()), f"{name}/paper_map@1": float(values.mean())}
            metrics |= {f"{name}/queries": QUERIES}
        pd.concat(tables).to_parquet(folder / "per_query.parquet")
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def write_sweep(folder: Path) -> Path:
    """Write six runs: four finished ones, one that failed and one that was stopped."""
    write_run(folder / "0", "csd_vitl", "wikiart", 0.7)
    write_run(folder / "1", "clip_vitl", "wikiart", 0.5)
    write_run(folder / "2", "vgg_gram", "wikiart", None, error="The weights of VGG16 | are missing.")
    write_run(folder / "3", "csd_vitl", "domainnet", None)
    write_run(folder / "4", "color_histogram", "wikiart", 0.2)
    write_run(folder / "5", "color_histogram", "domainnet", 0.4)
    return folder
