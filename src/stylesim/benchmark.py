"""python -m stylesim.benchmark: one table of finished evaluations, beside the paper's metrics."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from stylesim.runtime.launch import run


def main(cfg: DictConfig) -> dict[str, float]:
    """Write `benchmark.csv`, `.md`, `.tex` and `.png` into `cfg.runs`.

    Raises:
        StylesimError: If there is no run below `cfg.runs`, or none has such a metric or row.
    """
    from stylesim.report.benchmark_export import write_benchmark

    folder = Path(cfg.runs)
    metrics = [cfg.metrics] if isinstance(cfg.metrics, str) else list(cfg.metrics)
    print(write_benchmark(folder, metrics, cfg.against))
    if cfg.wandb:
        _log(folder, cfg.wandb)
    return {}


def _log(folder: Path, project: str) -> None:
    import pandas as pd
    import wandb

    with wandb.init(project=project, job_type="benchmark", name=folder.name) as run:
        table = wandb.Table(dataframe=pd.read_csv(folder / "benchmark.csv"))
        run.log({"benchmark": table, "metrics": wandb.Image(str(folder / "benchmark.png"))})


if __name__ == "__main__":
    run("benchmark")
