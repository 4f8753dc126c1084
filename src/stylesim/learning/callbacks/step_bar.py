"""The progress bar of a run, in optimiser steps."""

from __future__ import annotations

import sys
from typing import Any

import lightning
from lightning.pytorch.callbacks import TQDMProgressBar


class StepBar(TQDMProgressBar):
    """One bar over the whole run, with rate and time left; epochs, which stylesim does not have, are not shown."""

    def __init__(self) -> None:
        # In a log file every refresh is a line.
        super().__init__(refresh_rate=1 if sys.stderr.isatty() else 50)

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        super().on_train_start(trainer)
        # Not at the start of an epoch, which a resumed run is past. Its rate is of what is done now.
        bar = self.train_progress_bar
        bar.reset(trainer.max_steps * trainer.accumulate_grad_batches)
        bar.initial = bar.n = trainer.global_step * trainer.accumulate_grad_batches
        bar.set_description("training")

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Lightning's would begin another bar."""

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        return {k.removeprefix("train/").removesuffix("_shown"): v for k, v in shown.items() if k != "v_num"}
