"""Measures retrieval while a model trains."""

from __future__ import annotations

from typing import Any

import lightning

from stylesim.evaluation.evaluate import evaluate
from stylesim.evaluation.retrieval_spec import RetrievalSpec
from stylesim.learning.callbacks.ema import averaged_weights
from stylesim.learning.fsdp import whole_weights


class RetrievalProbe(lightning.Callback):
    """Runs each retrieval set of the data module that has a cadence (`every_n_steps`), and all of these at the last
    step.

    Figures are logged as `probe/<set>/<metric>` and left in `trainer.probed` (as `<set>/<metric>`) for callbacks that
    choose by them. The ranks share the describing; every rank gets the same metrics.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.sets: dict[str, RetrievalSpec] = trainer.datamodule.retrieval_sets()  # type: ignore[attr-defined]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        due = {name: spec for name, spec in self.sets.items() if _is_due(spec, step, trainer.max_steps)}
        if not due:
            return
        with averaged_weights(trainer, pl_module), whole_weights(pl_module.encoder):
            found = evaluate(
                pl_module.encoder,
                due,
                rank=trainer.global_rank,
                world=trainer.world_size,
                device=pl_module.device,
                progress=False,
            )
        metrics = {f"{name}/{key}": value for name, r in found.items() for key, value in r.metrics.items()}
        trainer.probed = {"step": step, **metrics}  # type: ignore[attr-defined]
        # Straight to the loggers: what is logged through the module is repeated at every later step.
        shown = {f"probe/{key}": float(value) for key, value in metrics.items()}
        for logger in trainer.loggers:
            logger.log_metrics({**shown, "samples_seen": float(pl_module.samples_seen)}, step - 1)


def _is_due(spec: RetrievalSpec, step: int, last: int) -> bool:
    return spec.every_n_steps is not None and (step % spec.every_n_steps == 0 or step == last)
