"""Measuring and keeping the averaged weights of a run that averages them (`callbacks=ema`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import lightning
from lightning.pytorch.callbacks import WeightAveraging


@contextmanager
def averaged_weights(trainer: lightning.Trainer, module: lightning.LightningModule) -> Iterator[None]:
    """While this is open the module holds the averaged weights, if Lightning's WeightAveraging is among the
    callbacks."""
    averaging = next((c for c in trainer.callbacks if isinstance(c, WeightAveraging)), None)  # type: ignore[attr-defined]
    if averaging is None:
        yield
        return
    # Lightning swaps the two around validation, which stylesim's probe takes the place of.
    averaging.on_validation_epoch_start(trainer, module)
    try:
        yield
    finally:
        averaging.on_validation_epoch_end(trainer, module)
