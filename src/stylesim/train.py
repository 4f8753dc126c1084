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

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from pydantic import Field

from stylesim.core.errors import StylesimError
from stylesim.core.files import atomic_path
from stylesim.core.ranks import is_main_process
from stylesim.core.run_folder import BEST_WEIGHTS, LAST_CHECKPOINT, LAST_WEIGHTS
from stylesim.runtime.config import check_encoders, check_roots
from stylesim.runtime.evaluation_run import evaluate_and_report
from stylesim.runtime.launch import run
from stylesim.runtime.rank_monitor import stop_watching, watch_started_ranks
from stylesim.runtime.settings import CommandSettings

if TYPE_CHECKING:
    from stylesim.encoders.style_encoder import Provenance


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
    """Train as configured; returns the metrics of the best checkpoint (`validation/recall@1`, ...).

    Leaves in `cfg.run_dir`: `checkpoints/`, `metrics.csv`, `descriptors/`, `table.csv`, `report.html`.

    Raises:
        StylesimError: For whatever the user can mend: data, weights, devices, a loss that is not finite.
    """
    check_roots(cfg)
    check_encoders(cfg)
    from stylesim.learning.loggers import build_loggers, finish_loggers
    from stylesim.learning.out_of_memory import advise_on_out_of_memory

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
        _leave_if_stopped(trainer, run_dir)
        # Under torchrun every rank has composed a run folder of its own; rank 0's is the run's.
        run_dir = Path(trainer.strategy.broadcast(str(run_dir)))
        if trainer.is_global_zero:
            _settle_weights(run_dir, by_probe=cfg.callbacks.checkpoints.monitor is not None)
            shutil.rmtree(run_dir / "descriptors", ignore_errors=True)  # of the weights before a resume
        trainer.strategy.barrier()
        metrics = _evaluate(cfg, run_dir, trainer, datamodule.retrieval_sets(), loggers)
    except BaseException:
        stop_watching()  # this rank has seen the failure; sending a log may take longer than a rank that hangs gets
        finish_loggers(loggers, failed=True)
        raise
    finish_loggers(loggers, failed=False)
    return metrics


def _evaluate(
    cfg: DictConfig, run_dir: Path, trainer: Any, specs: dict[str, Any], loggers: list[Any]
) -> dict[str, float]:
    if not specs:
        if trainer.is_global_zero:
            print(f"No retrieval set below data.probes, so nothing is scored. Weights: {run_dir / 'checkpoints'}.")
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
    )


def build(cfg: DictConfig) -> tuple[Any, Any]:
    """The StyleModule and the data module of a configuration, with the same initial weights on every rank."""
    import lightning

    from stylesim.data.modules import StyleDataModule

    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = instantiate(cfg.data)
    if not isinstance(datamodule, StyleDataModule):
        raise StylesimError(
            f"{type(datamodule).__name__} is for evaluation only, there is nothing in it to train on: choose "
            "data=stylecross, laion_styles or folder here, and this one with python -m stylesim.evaluate."
        )
    encoder = instantiate(cfg.model)
    encoder.provenance = replace(encoder.provenance, trained_on=_images_of(datamodule.locations, encoder.provenance))
    module = instantiate(cfg.learning)(encoder, loss=instantiate(cfg.loss), optim=instantiate(cfg.optim))
    return module, datamodule


def _images_of(locations: Sequence[str | Path], start: Provenance) -> str:
    """The roots of a training set, each with what it says it was cleared of, and what the weights had seen before."""
    from stylesim.curation.deduplicate.contamination_note import checked_against

    seen = [
        f"{location} ({', '.join(checked_against(location)) or 'cleared of no evaluation set'})"
        for location in locations
    ]
    if start.weights != "random":
        seen.append(f"begun from {start.weights} ({start.trained_on or 'its images are not known'})")
    return "; ".join(seen)


def _leave_if_stopped(trainer: Any, run_dir: Path) -> None:
    """After a signal: say where the run stands, and exit as a shell expects of it."""
    signum = next((c.signum for c in trainer.callbacks if getattr(c, "signum", None)), None)
    if signum is None:
        return
    if is_main_process():
        print(
            f"stylesim: stopped by a signal after step {trainer.global_step} of {trainer.max_steps};"
            f" the state is in {run_dir / LAST_CHECKPOINT}. Go on with the same command and resume=true.",
            file=sys.stderr,
        )
    raise SystemExit(128 + signum)


def _settle_weights(run_dir: Path, by_probe: bool) -> None:
    """Where no probe has chosen the best weights, the last ones are."""
    best = run_dir / BEST_WEIGHTS
    if not (by_probe and best.exists()):
        with atomic_path(best) as partial:
            shutil.copyfile(run_dir / LAST_WEIGHTS, partial)


if __name__ == "__main__":
    run("train")
