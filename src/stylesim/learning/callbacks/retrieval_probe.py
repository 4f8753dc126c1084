"""Evaluate retrieval sets during training."""

from __future__ import annotations

from typing import Any, NamedTuple

import lightning

from stylesim.evaluation.evaluate import evaluate
from stylesim.evaluation.retrieval_spec import RetrievalSpec
from stylesim.learning.callbacks.averaged_weights import averaged_weights
from stylesim.learning.fsdp import unsharded_weights


class ProbeResult(NamedTuple):
    """Metrics of the sets that were evaluated at one optimiser step, by name (`<set>/<metric>`)."""

    step: int
    metrics: dict[str, Any]


class RetrievalProbe(lightning.Callback):
    """Evaluates each retrieval set of the data module every `every_n_steps` steps of that set, and at the last step.

    Metrics are logged as `probe/<set>/<metric>`. The ranks share the work of embedding, and each of them gets the same
    metrics. `latest` holds the newest result, for callbacks that select checkpoints by it.
    """

    latest: ProbeResult | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.latest = None
        self.accept_damaged: bool = trainer.datamodule.views.accept_damaged  # type: ignore[attr-defined]
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
        with averaged_weights(trainer, pl_module), unsharded_weights(pl_module.encoder):
            results = evaluate(
                pl_module.encoder,
                due,
                rank=trainer.global_rank,
                world=trainer.world_size,
                device=pl_module.device,
                accept_damaged=self.accept_damaged,
                progress=False,
            )
        metrics = {f"{name}/{key}": value for name, r in results.items() for key, value in r.metrics.items()}
        self.latest = ProbeResult(step, metrics)
        # Use the loggers directly: metrics logged through the module would be repeated at every later step.
        logged = {f"probe/{key}": float(value) for key, value in metrics.items()}
        for logger in trainer.loggers:
            logger.log_metrics({**logged, "samples_seen": float(pl_module.samples_seen)}, step - 1)


def latest_probe(trainer: lightning.Trainer) -> ProbeResult | None:
    """Return the newest result of the trainer's RetrievalProbe; None before the first one, or without a probe."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback.latest for callback in callbacks if isinstance(callback, RetrievalProbe)), None)


def _is_due(spec: RetrievalSpec, step: int, last: int) -> bool:
    return spec.every_n_steps is not None and (step % spec.every_n_steps == 0 or step == last)
