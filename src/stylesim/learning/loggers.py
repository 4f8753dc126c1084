"""Build the loggers of a run: `metrics.csv` always, and Weights & Biases if it is configured."""

from __future__ import annotations

import csv
import secrets
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from stylesim.core.errors import ConfigError
from stylesim.core.files import sha256_of_text, write_text
from stylesim.core.ranks import is_main_process
from stylesim.core.run_folder import LAST_CHECKPOINT
from stylesim.learning.trainer import silence_lightning

WANDB_ID = "wandb_id.txt"
"""The file of a run folder that holds the id of its W&B run."""


def build_loggers(cfg: DictConfig, run_dir: Path, resumes: bool) -> list[Logger]:
    """Return the loggers of a run.

    Args:
        cfg: The composed configuration; `cfg.logger.wandb` adds Weights & Biases.
        run_dir: The run folder, into which the loggers write.
        resumes: Whether the run is resumed; the loggers then continue from its last checkpoint.
    """
    silence_lightning()
    loggers: list[Logger] = [_csv_logger(run_dir, resumes)]
    if "wandb" in cfg.logger:
        loggers.append(_wandb_logger(cfg, run_dir, resumes))
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


def _wandb_logger(cfg: DictConfig, run_dir: Path, resumes: bool) -> WandbLogger:
    """Return a logger with a W&B run of its own, which a resumed run continues.

    Raises:
        ConfigError: If W&B does not accept the run, mostly because there is no API key.
    """
    from wandb.errors import Error as WandbError  # imports all of wandb, which most runs do not need

    options = OmegaConf.to_container(cfg.logger.wandb, resolve=True)
    logger = WandbLogger(save_dir=run_dir, id=_wandb_id(run_dir, resumes), resume="allow", **options)  # type: ignore[arg-type]
    if is_main_process():
        try:
            experiment = logger.experiment
        except WandbError as error:
            raise ConfigError(
                f"logger=wandb cannot start a run: {str(error).splitlines()[0].rstrip('.')}. Log in with `wandb login`,"
                " set WANDB_API_KEY, or add logger.wandb.offline=true, which needs neither an account nor a network."
            ) from error
        experiment.config.update(OmegaConf.to_container(cfg, resolve=True), allow_val_change=True)
        experiment.define_metric("samples_seen")
        experiment.define_metric("*", step_metric="samples_seen")
    return logger


def _wandb_id(run_dir: Path, resumes: bool) -> str:
    """Return the id of a run's W&B run: a random one for a new run, kept in its folder for a resumed one.

    A path would not do as an id: several machines or containers may write to the same one.
    """
    file = run_dir / WANDB_ID
    if resumes and file.is_file():
        return file.read_text(encoding="utf-8").strip()
    if resumes and (run_dir / "wandb").is_dir():  # begun by version 0.1.0
        return sha256_of_text(str(run_dir.resolve()))[:12]
    identity = secrets.token_hex(6)
    if is_main_process():
        write_text(file, identity + "\n")
    return identity


def finish_loggers(loggers: list[Logger], *, failed: bool) -> None:
    """End the run of every logger, so that the next job of a sweep starts a new one."""
    for logger in loggers:
        logger.finalize("failed" if failed else "success")
        if isinstance(logger, WandbLogger) and is_main_process():
            logger.experiment.finish(exit_code=int(failed))
