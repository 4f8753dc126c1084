"""Build the loggers of a run: `metrics.csv` always, and Weights & Biases if it is configured."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from stylesim.core.files import sha256_of_text
from stylesim.core.ranks import is_main_process
from stylesim.core.run_folder import LAST_CHECKPOINT


def build_loggers(cfg: DictConfig, run_dir: Path, resumes: bool) -> list[Logger]:
    """Return the loggers of a run.

    Args:
        cfg: The composed configuration; `cfg.logger.wandb` adds Weights & Biases.
        run_dir: The run folder, into which the loggers write.
        resumes: Whether the run is resumed; the loggers then continue from its last checkpoint.
    """
    loggers: list[Logger] = [_csv_logger(run_dir, resumes)]
    if "wandb" in cfg.logger:
        loggers.append(_wandb_logger(cfg, run_dir))
    return loggers


def _csv_logger(run_dir: Path, resumes: bool) -> CSVLogger:
    rows = _rows_until_checkpoint(run_dir) if resumes else []
    logger = CSVLogger(run_dir, name="", version="", flush_logs_every_n_steps=10)
    if is_main_process() and rows:
        # Lightning deletes the file of the earlier run, so the rows up to the checkpoint are written again.
        logger.experiment.metrics.extend(rows)
        logger.save()
    return logger


def _rows_until_checkpoint(run_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.csv up to the checkpoint; none on ranks that do not write it."""
    path = run_dir / "metrics.csv"
    if not path.is_file() or not is_main_process():
        return []
    step = torch.load(run_dir / LAST_CHECKPOINT, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    with path.open(newline="") as file:
        rows = [{k: v for k, v in row.items() if v not in ("", None)} for row in csv.DictReader(file)]
    # Lightning counts steps from 0 when it logs: the metrics of step s are logged as step s - 1.
    return [row for row in rows if int(row["step"]) < step]


def _wandb_logger(cfg: DictConfig, run_dir: Path) -> WandbLogger:
    """Return a logger whose W&B run id is derived from the run folder, so that a resumed job continues its W&B run."""
    identity = sha256_of_text(str(run_dir.resolve()))[:12]
    options = OmegaConf.to_container(cfg.logger.wandb, resolve=True)
    logger = WandbLogger(save_dir=run_dir, id=identity, resume="allow", **options)  # type: ignore[arg-type]
    if is_main_process():
        logger.experiment.config.update(OmegaConf.to_container(cfg, resolve=True), allow_val_change=True)
        logger.experiment.define_metric("samples_seen")
        logger.experiment.define_metric("*", step_metric="samples_seen")
    return logger


def finish_loggers(loggers: list[Logger], *, failed: bool) -> None:
    """End the run of every logger, so that the next job of a sweep starts a new one."""
    for logger in loggers:
        logger.finalize("failed" if failed else "success")
        if isinstance(logger, WandbLogger) and is_main_process():
            logger.experiment.finish(exit_code=int(failed))
