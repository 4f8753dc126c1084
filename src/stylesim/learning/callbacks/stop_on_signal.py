"""End a run on all ranks together after a whole step, with a checkpoint, when a signal arrives."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import lightning

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopOnSignal(lightning.Callback):
    """On SIGTERM (a scheduler) or Ctrl-C: finish the step, write `last.ckpt` and end the run.

    Replaces Lightning's handlers, which raise in the middle of a step and, under DDP, start a collective inside the
    handler. A signal may reach only one of the ranks, so they exchange after every step whether one has arrived. A
    second Ctrl-C ends the run immediately.
    """

    signum: int | None = None
    """The signal that stopped the run; None if none did."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.previous = {s: signal.signal(s, self._handle) for s in SIGNALS}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        self.signum = signum

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.strategy.reduce_boolean_decision(self.signum is not None, all=False):
            self.signum = self.signum or signal.SIGTERM
            trainer.should_stop = True

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for signum, handler in getattr(self, "previous", {}).items():
            signal.signal(signum, handler)
