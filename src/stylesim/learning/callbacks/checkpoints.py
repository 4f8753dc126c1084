"""Keeps `last` (to resume from) and `best` (by the validation probe), each also as plain safetensors weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint

from stylesim.core.errors import StylesimError
from stylesim.encoders.weights.checkpoint import save_weights
from stylesim.learning.callbacks.ema import averaged_weights
from stylesim.learning.fsdp import whole_state
from stylesim.learning.module import StyleModule


class Checkpoints(Checkpoint):
    """`checkpoints/last.ckpt` with `last.safetensors`, and `checkpoints/best.safetensors`.

    A checkpoint is taken at whole optimiser steps only, so that what is resumed is a state that an uninterrupted run
    also passes through. It becomes `last` when the loss after it is finite: a step that ruins the weights cannot ruin
    `last`.

    Args:
        monitor: The probe's metric that chooses `best`, higher is better (`validation/recall@1`).
        every_n_steps: Cadence of `last`, in optimiser steps; the last step and an early stop are always saved.
    """

    def __init__(self, monitor: str | None = None, every_n_steps: int = 500) -> None:
        self.monitor, self.every_n_steps = monitor, every_n_steps
        self.best: dict[str, float] = {}

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.folder = Path(trainer.default_root_dir) / "checkpoints"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:  # what an earlier run left unproven must not become `last` in this one
            for suffix in ("ckpt", "safetensors"):
                (self.folder / f"next.{suffix}").unlink(missing_ok=True)
        sets = [name for name, spec in trainer.datamodule.retrieval_sets().items() if spec.every_n_steps]  # type: ignore[attr-defined]
        if self.monitor and sets and self.monitor.partition("/")[0] not in sets:
            raise StylesimError(
                f"callbacks.checkpoints.monitor={self.monitor} is no metric of the probe, which asks {', '.join(sets)}."
                " Name one of these (SET/FIGURE), or set it to null to keep the last weights only."
            )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._promote(trainer)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._keep_best(trainer, pl_module)
        step = trainer.global_step
        ends = step == trainer.max_steps or trainer.should_stop
        if ends or step % self.every_n_steps == 0:
            self._save_weights(trainer, pl_module, "next")
            trainer.save_checkpoint(self.folder / "next.ckpt")
        if ends:
            self._promote(trainer)

    def _promote(self, trainer: lightning.Trainer) -> None:
        if trainer.is_global_zero and (self.folder / "next.ckpt").exists():
            for logger in trainer.loggers:
                logger.save()  # what a killed run has logged up to its checkpoint is not logged again
            # The checkpoint last: where it is promoted, its weights are too.
            for suffix in ("safetensors", "ckpt"):
                if (following := self.folder / f"next.{suffix}").exists():
                    following.replace(self.folder / f"last.{suffix}")

    def _keep_best(self, trainer: lightning.Trainer, module: StyleModule) -> None:
        probed = getattr(trainer, "probed", {})
        if not self.monitor or probed.get("step") != trainer.global_step:
            return
        if not any(name.startswith(self.monitor.partition("/")[0] + "/") for name in probed):
            return  # other sets were due at this step
        if self.monitor not in probed:
            raise StylesimError(
                f"callbacks.checkpoints.monitor={self.monitor} is no metric of the probe. Known: {', '.join(probed)}."
            )
        if probed[self.monitor] > self.best.get("value", float("-inf")):
            self.best = {"value": probed[self.monitor], "step": trainer.global_step}
            self._save_weights(trainer, module, "best")

    def _save_weights(self, trainer: lightning.Trainer, module: StyleModule, name: str) -> None:
        with averaged_weights(trainer, module):
            state = whole_state(module.encoder, keep=trainer.is_global_zero)
            if not trainer.is_global_zero:
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.folder / f"{name}.partial"
            about = {"step": str(trainer.global_step), "samples_seen": str(module.samples_seen)}
            about |= {"best": json.dumps(self.best)} if self.best else {}
            save_weights(module.encoder, partial, about, state)
        partial.replace(self.folder / f"{name}.safetensors")
