"""Collect finished evaluations in one table, beside the numbers of the paper.

    stylesim benchmark runs=multirun/paper_table1

A sweep of evaluations writes this table when it ends; this command writes it again, also for an unfinished sweep.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from pydantic import Field

from stylesim.core.errors import ConfigError
from stylesim.runtime.launch import run
from stylesim.runtime.settings import CommandSettings


class Settings(CommandSettings):
    """The keys of `stylesim benchmark`."""

    runs: str = Field(description="The folder of a sweep, or any folder that contains run folders.")
    metrics: str | list[str] = Field(
        ["recall@1"], description="Columns for retrieval sets that the paper does not have."
    )
    against: str | None = Field(None, description="The row to compare the others with; null is the best of each set.")
    wandb: str | None = Field(None, description="A Weights & Biases project that receives the table and the plot.")


def main(cfg: DictConfig) -> dict[str, float]:
    """Write `benchmark.csv`, `.md`, `.tex` and `.png` into `cfg.runs`.

    Raises:
        DataError: If there is no run below `cfg.runs`.
        ConfigError: If no run has the metrics or the row asked for.
    """
    from stylesim.report.tables.benchmark_export import write_benchmark

    folder = Path(cfg.runs)
    metrics = [cfg.metrics] if isinstance(cfg.metrics, str) else list(cfg.metrics)
    print(write_benchmark(folder, metrics, cfg.against))
    if cfg.wandb:
        _log(folder, cfg.wandb)
    return {}


def _log(folder: Path, project: str) -> None:
    import pandas as pd
    import wandb
    from wandb.errors import Error as WandbError

    try:
        started = wandb.init(project=project, job_type="benchmark", name=folder.name)
    except WandbError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"wandb={project} cannot start a run: {reason}. Log in with `wandb login`, set WANDB_API_KEY, or"
            " WANDB_MODE=offline, which needs neither an account nor a network."
        ) from error
    with started as run:
        table = wandb.Table(dataframe=pd.read_csv(folder / "benchmark.csv"))
        run.log({"benchmark": table, "metrics": wandb.Image(str(folder / "benchmark.png"))})


if __name__ == "__main__":
    run("benchmark")
