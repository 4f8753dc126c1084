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

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.damage.add(len(batch.keys), batch.damaged)
        self.damage.raise_if_over(trainer.datamodule.max_damaged)  # type: ignore[attr-defined]

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self.damage.skipped:
            print(f"rank {trainer.global_rank}: {self.damage.summary()}", flush=True)
