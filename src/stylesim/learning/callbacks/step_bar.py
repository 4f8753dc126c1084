"""The progress bar of a run, in optimiser steps."""

from __future__ import annotations

import sys
from typing import Any

import lightning
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class StepBar(TQDMProgressBar):
    """One bar for the whole run, with rate and time left, instead of Lightning's bar per epoch."""

    def __init__(self) -> None:
        # In a log file every refresh is a line.
        super().__init__(refresh_rate=1 if sys.stderr.isatty() else 50)

    def init_train_tqdm(self) -> Tqdm:
        """Return the bar. It writes to stderr, because stdout is for the results of a command."""
        return Tqdm(
            desc="training",
            position=2 * self.process_position,
            disable=self.is_disabled,
            leave=True,
            dynamic_ncols=True,
            file=sys.stderr,
            smoothing=0,
        )

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Start the bar here rather than at the start of an epoch, which a resumed run has already passed."""
        super().on_train_start(trainer)
        bar = self.train_progress_bar
        bar.reset(trainer.max_steps * trainer.accumulate_grad_batches)
        # `initial` keeps the steps before a resume out of the rate.
        bar.initial = bar.n = trainer.global_step * trainer.accumulate_grad_batches

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Keep Lightning from starting another bar."""

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """Return the metrics shown beside the bar, under short names."""
        metrics = super().get_metrics(trainer, pl_module)
        return {k.removeprefix("train/").removesuffix("_shown"): v for k, v in metrics.items() if k != "v_num"}
