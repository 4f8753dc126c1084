"""python -m stylesim.benchmark: one table of finished evaluations, beside the paper's figures."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from stylesim.launch import run


def main(cfg: DictConfig) -> dict[str, float]:
    """Write `benchmark.csv`, `.md`, `.tex` and `.png` into `cfg.runs`.

    Raises:
        StylesimError: If there is no run below `cfg.runs`, or none has such a figure or row.
    """
    from stylesim.report.benchmark import write_benchmark

    folder = Path(cfg.runs)
    figures = [cfg.figures] if isinstance(cfg.figures, str) else list(cfg.figures)
    print(write_benchmark(folder, figures, cfg.against))
    if cfg.wandb:
        _log(folder, cfg.wandb)
    return {}


def _log(folder: Path, project: str) -> None:
    import pandas as pd
    import wandb

    with wandb.init(project=project, job_type="benchmark", name=folder.name) as run:
        table = wandb.Table(dataframe=pd.read_csv(folder / "benchmark.csv"))
        run.log({"benchmark": table, "figures": wandb.Image(str(folder / "benchmark.png"))})


if __name__ == "__main__":
    run("benchmark")
