"""Train a style encoder on shards, evaluating retrieval during training.

    stylesim train                                                   StyleCross, EfficientNet-Lite0
    stylesim train model=csd_vitl data=laion_styles data.root=/shards trainer=ddp
    stylesim train data.batch_size=64 trainer.max_steps=2000 loss.temperature=0.07
    stylesim train experiment=stylecross_demo                        a complete recipe
    stylesim train -m loss.temperature=0.05,0.1                      a sweep
    stylesim train ... resume=true                                   continue a run that was stopped

Sweeps run elsewhere with launcher=joblib, submitit_local, submitit_slurm or ray, and are searched with sweep=optuna.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from pydantic import Field

from stylesim.core.errors import ConfigError
from stylesim.core.files import atomic_path
from stylesim.core.ranks import is_main_process
from stylesim.core.run_folder import (
    BEST_WEIGHTS,
    LAST_CHECKPOINT,
    LAST_WEIGHTS,
    RESULTS_OF_EVALUATION,
    remove_results,
)
from stylesim.runtime.evaluation_run import evaluate_and_report
from stylesim.runtime.existence_checks import check_encoders, check_training_data
from stylesim.runtime.launch import run
from stylesim.runtime.rank_monitor import stop_watching, watch_started_ranks
from stylesim.runtime.resume import refuse_used_folder
from stylesim.runtime.settings import CommandSettings

if TYPE_CHECKING:
    from stylesim.encoders.style_encoder import Provenance

log = logging.getLogger(__name__)


class Settings(CommandSettings):
    """The keys of `stylesim train`."""

    seed: int = Field(0, description="Seed of the initial weights, the order of the images and their views.")
    resume: bool | str = Field(
        False, description="true: the newest run with exactly this configuration; or the path of a run folder."
    )
    controls: dict[str, Any] = Field(
        {}, description="More encoders to evaluate beside the trained one: +model@controls.NAME=frozen_lite0."
    )
    objective: str | None = Field(None, description="The metric that a sweeper optimises, such as validation/recall@1.")


def main(cfg: DictConfig) -> dict[str, float]:
    """Train as configured and return the metrics of the best checkpoint (`validation/recall@1`, ...).

    Writes into `cfg.run_dir`: `checkpoints/`, `metrics.csv`, `descriptors/`, `table.csv`, `report.html`.

    Raises:
        StylesimError: For whatever the user can correct: data, weights, devices, a loss that is not finite.
    """
    if not cfg.resume and is_main_process():
        refuse_used_folder(Path(cfg.run_dir))
    check_training_data(cfg)
    check_encoders(cfg)
    from stylesim.learning.loggers import build_loggers, finish_loggers
    from stylesim.learning.out_of_memory import advise_on_out_of_memory
    from stylesim.learning.trainer import PROFILES

    module, datamodule = build(cfg)
    run_dir, resumes = Path(cfg.run_dir), bool(cfg.resume)
    checkpoint = run_dir / LAST_CHECKPOINT if resumes else None
    loggers = build_loggers(cfg, run_dir, resumes)
    watch_started_ranks()
    try:
        trainer = instantiate(cfg.trainer)(
            callbacks=list(instantiate(cfg.callbacks).values()), logger=loggers, run_dir=str(run_dir)
        )
        with advise_on_out_of_memory(datamodule.batch_size, module.grad_cache):
            trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True)
        if cfg.trainer.profiler and trainer.is_global_zero:
            print(min(run_dir.glob(PROFILES)).read_text(encoding="utf-8"), flush=True)
        _leave_if_stopped(trainer, run_dir)
        # Under torchrun every rank has composed a run folder; rank 0's is that of the run.
        run_dir = Path(trainer.strategy.broadcast(str(run_dir)))
        if trainer.is_global_zero:
            _choose_best_weights(run_dir, by_probe=cfg.callbacks.checkpoints.monitor is not None)
            remove_results(run_dir, RESULTS_OF_EVALUATION)  # of the weights before the run was resumed
        trainer.strategy.barrier()
        metrics = _evaluate(cfg, run_dir, trainer, datamodule.retrieval_sets(), loggers)
    except BaseException:
        stop_watching()  # this rank has noticed the failure; sending a log may take longer than the others wait
        finish_loggers(loggers, failed=True)
        raise
    finish_loggers(loggers, failed=False)
    return metrics


def _evaluate(
    cfg: DictConfig, run_dir: Path, trainer: Any, specs: dict[str, Any], loggers: list[Any]
) -> dict[str, float]:
    if not specs:
        if trainer.is_global_zero:
            log.info("data.probes has no retrieval set, so nothing is evaluated. Weights: %s", run_dir / "checkpoints")
        return {}
    return evaluate_and_report(
        cfg,
        run_dir,
        specs,
        checkpoint=run_dir / BEST_WEIGHTS,
        rank=trainer.global_rank,
        world=trainer.world_size,
        device=trainer.strategy.root_device,
        loggers=loggers,
        colour="raw" if cfg.views.colour == "raw" else None,  # for the controls too
        accept_damaged=cfg.views.accept_damaged,
    )


def build(cfg: DictConfig) -> tuple[Any, Any]:
    """Return the StyleModule and the data module of a configuration, with the same initial weights on every rank.

    Raises:
        ConfigError: If the data are for evaluation only.
    """
    import lightning

    from stylesim.data.style_data_module import StyleDataModule

    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = instantiate(cfg.data)
    if not isinstance(datamodule, StyleDataModule):
        raise ConfigError(
            f"data must be for training, got {type(datamodule).__name__}, which is for evaluation only. Choose"
            " data=stylecross, laion_styles or folder, or run `stylesim evaluate` with these data."
        )
    encoder = instantiate(cfg.model)
    encoder.use_colour(datamodule.views.colour)
    trained_on = _training_images(datamodule.locations, encoder.provenance)
    encoder.provenance = replace(encoder.provenance, trained_on=trained_on)
    module = instantiate(cfg.learning)(encoder, loss=instantiate(cfg.loss), optim=instantiate(cfg.optim))
    return module, datamodule


def _training_images(locations: Sequence[str | Path], start: Provenance) -> str:
    """Name the roots of a training set, each with the evaluation sets it was cleared of, and the initial weights."""
    from stylesim.curation.deduplicate.contamination_note import checked_against

    seen = [
        f"{location} ({', '.join(checked_against(location)) or 'cleared of no evaluation set'})"
        for location in locations
    ]
    if start.weights != "random":
        seen.append(f"initial weights: {start.weights} ({start.trained_on or 'training images unknown'})")
    return "; ".join(seen)


def _leave_if_stopped(trainer: Any, run_dir: Path) -> None:
    """After a signal, say how far the run has come, and exit with the status that shells expect."""
    signum = next((c.signum for c in trainer.callbacks if getattr(c, "signum", None)), None)
    if signum is None:
        return
    if is_main_process():
        log.warning(
            "stopped by a signal after step %d of %d; the state is in %s. The same command with resume=true continues.",
            trainer.global_step,
            trainer.max_steps,
            run_dir / LAST_CHECKPOINT,
        )
    raise SystemExit(128 + signum)


def _choose_best_weights(run_dir: Path, by_probe: bool) -> None:
    """Make the last weights the best ones, unless the probes have chosen some."""
    best = run_dir / BEST_WEIGHTS
    if not (by_probe and best.exists()):
        with atomic_path(best) as partial:
            shutil.copyfile(run_dir / LAST_WEIGHTS, partial)


if __name__ == "__main__":
    run("train")
