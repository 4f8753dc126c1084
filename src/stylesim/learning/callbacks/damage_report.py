"""Count and list the samples that could not be read, and stop a run with too many of them."""

from __future__ import annotations

import logging
from typing import Any

import lightning

from stylesim.data.batch import Batch
from stylesim.data.damage_log import DamageLog

log = logging.getLogger(__name__)


class DamageReport(lightning.Callback):
    """Counts the samples that each rank read and skipped; stops the run if more than `data.max_damaged` were skipped.

    The counts and the first examples are logged at the end of the run, and are saved in its checkpoints.
    """

    def __init__(self) -> None:
        self.damage = DamageLog()

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.damage.once = trainer.datamodule.balance is not None  # type: ignore[attr-defined]

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self.damage.add(len(batch.keys), batch.damaged)
        self.damage.raise_if_over(trainer.datamodule.max_damaged)  # type: ignore[attr-defined]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            for planned in trainer.datamodule.planned_sources(trainer.world_size):  # type: ignore[attr-defined]
                plan = planned.plan
                log.info(
                    "%s images: %s global batches per epoch, %s images of each epoch dropped",
                    *(f"{count:,}" for count in (sum(plan.counts), plan.steps, plan.dropped)),
                )

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.damage.raise_if_over(trainer.datamodule.max_damaged, min_seen=1)  # type: ignore[attr-defined]
        self._log_skipped(trainer)

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._log_skipped(trainer)

    def _log_skipped(self, trainer: lightning.Trainer) -> None:
        if self.damage.skipped:
            log.warning("rank %d: %s", trainer.global_rank, self.damage.summary())

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.damage.seen, "skipped": self.damage.skipped, "examples": self.damage.examples}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self.damage).update(state_dict)
