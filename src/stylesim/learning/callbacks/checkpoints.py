"""Write the last checkpoint, from which a run resumes, and the weights of the last and of the best encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint

from stylesim.core.errors import ConfigError
from stylesim.core.files import atomic_path
from stylesim.encoders.weights.checkpoint import save_weights
from stylesim.learning.callbacks.averaged_weights import averaged_weights
from stylesim.learning.callbacks.retrieval_probe import latest_probe
from stylesim.learning.fsdp import full_state_dict
from stylesim.learning.style_module import StyleModule


class Checkpoints(Checkpoint):
    """Writes `checkpoints/last.ckpt` with `last.safetensors`, and `checkpoints/best.safetensors`.

    A checkpoint is written only after a whole optimiser step, so that a resumed run continues from a state that an
    uninterrupted run has too. It is first called `next`, and is renamed to `last` when the next batch has given a
    finite loss. So if a step makes the weights unusable, `last` still has the previous ones.

    Args:
        monitor: The metric of a probe by which `best` is chosen, such as `validation/recall@1`; higher is better. With
            None, only `last` is written.
        every_n_steps: Optimiser steps between two checkpoints. One is also written at the last step, and when the run
            is stopped early.
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
        """Remove unfinished files and `next` checkpoints of an earlier run, and check `monitor`.

        Raises:
            ConfigError: If `monitor` names a set that is not evaluated during training.
        """
        if trainer.is_global_zero:
            for pattern in ("next.ckpt", "next.safetensors", ".*.partial"):
                for leftover in self.folder.glob(pattern):
                    leftover.unlink()
        sets = [name for name, spec in trainer.datamodule.retrieval_sets().items() if spec.every_n_steps]  # type: ignore[attr-defined]
        if self.monitor and sets and self.monitor.partition("/")[0] not in sets:
            raise ConfigError(
                f"callbacks.checkpoints.monitor must be SET/METRIC, where SET is evaluated during training"
                f" (data.probes.SET with every_n_steps): {', '.join(sets)}. Got {self.monitor}. Set it to null to write"
                " only the last weights."
            )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._promote(trainer)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._write_best(trainer, pl_module)
        step = trainer.global_step
        is_last = step == trainer.max_steps or trainer.should_stop
        if is_last or step % self.every_n_steps == 0:
            self._write_weights(trainer, pl_module, "next")
            trainer.save_checkpoint(self.folder / "next.ckpt")
        if is_last:
            self._promote(trainer)

    def _promote(self, trainer: lightning.Trainer) -> None:
        """Rename `next` to `last`, if there is a `next`."""
        if trainer.is_global_zero and (self.folder / "next.ckpt").exists():
            for logger in trainer.loggers:
                logger.save()  # a resumed run does not log again what was logged up to its checkpoint
            # The checkpoint is renamed after the weights, so that it never exists without them.
            for suffix in ("safetensors", "ckpt"):
                if (path := self.folder / f"next.{suffix}").exists():
                    path.replace(self.folder / f"last.{suffix}")

    def _write_best(self, trainer: lightning.Trainer, module: StyleModule) -> None:
        probe = latest_probe(trainer)
        if not self.monitor or probe is None or probe.step != trainer.global_step:
            return
        if not any(name.startswith(self.monitor.partition("/")[0] + "/") for name in probe.metrics):
            return  # only other sets were evaluated at this step
        if self.monitor not in probe.metrics:
            raise ConfigError(
                f"callbacks.checkpoints.monitor must be a metric of the probe, got {self.monitor}."
                f" Its metrics are {', '.join(probe.metrics)}."
            )
        if probe.metrics[self.monitor] > self.best.get("value", float("-inf")):
            self.best = {"value": probe.metrics[self.monitor], "step": trainer.global_step}
            self._write_weights(trainer, module, "best")

    def _write_weights(self, trainer: lightning.Trainer, module: StyleModule, name: str) -> None:
        with averaged_weights(trainer, module):
            state = full_state_dict(module.encoder, keep=trainer.is_global_zero)
            if not trainer.is_global_zero:
                return
            metadata = {"step": str(trainer.global_step), "samples_seen": str(module.samples_seen)}
            metadata |= {"best": json.dumps(self.best)} if self.best else {}
            with atomic_path(self.folder / f"{name}.safetensors") as partial:
                save_weights(module.encoder, partial, metadata, state)
