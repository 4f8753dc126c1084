"""Counts the samples that a stream had to leave out, lists them at the end, and stops a run that loses too many."""

from __future__ import annotations

from typing import Any

import lightning

from stylesim.data.batch import Batch
from stylesim.data.damage import DamageLog


class DamageReport(lightning.Callback):
    """Each rank counts what it has read; more than `data.max_damaged` of it stops the run with the first examples."""

    def __init__(self) -> None:
        self.damage = DamageLog()

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.damage.once = trainer.datamodule.balance is not None  # type: ignore[attr-defined]

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self.damage.add(len(batch.keys), batch.damaged)
        self.damage.raise_if_over(trainer.datamodule.max_damaged)  # type: ignore[attr-defined]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            for line in trainer.datamodule.lines(trainer.world_size):  # type: ignore[attr-defined]
                plan = line.plan
                print(
                    f"{sum(plan.counts):,} images: {plan.steps:,} global batches an epoch, {plan.dropped:,} left over",
                    flush=True,
                )

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.damage.raise_if_over(trainer.datamodule.max_damaged, min_seen=1)  # type: ignore[attr-defined]
        self._tell(trainer)

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._tell(trainer)

    def _tell(self, trainer: lightning.Trainer) -> None:
        if self.damage.skipped:
            print(f"rank {trainer.global_rank}: {self.damage.summary()}", flush=True)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.damage.seen, "skipped": self.damage.skipped, "examples": self.damage.examples}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self.damage).update(state_dict)
