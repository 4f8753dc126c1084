"""Show one progress bar for a whole training run."""

from __future__ import annotations

import sys
from typing import Any

import lightning
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class StepBar(TQDMProgressBar):
    """One bar for the whole run, with rate and time left, instead of Lightning's bar per epoch."""

    def __init__(self) -> None:
        # In a log file, every refresh adds a line.
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
        """Start the bar here and not at the start of an epoch, because a resumed run starts in the middle of one."""
        super().on_train_start(trainer)
        bar = self.train_progress_bar
        bar.reset(trainer.max_steps * trainer.accumulate_grad_batches)
        # With `initial`, the rate does not include the steps before the run was resumed.
        bar.initial = bar.n = trainer.global_step * trainer.accumulate_grad_batches

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Prevent Lightning from starting a new bar for each epoch."""

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """Return the metrics shown beside the bar, under short names."""
        metrics = super().get_metrics(trainer, pl_module)
        return {k.removeprefix("train/").removesuffix("_shown"): v for k, v in metrics.items() if k != "v_num"}
