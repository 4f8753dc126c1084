"""Use the averaged weights of a run with `callbacks=ema`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import lightning
from lightning.pytorch.callbacks import WeightAveraging


@contextmanager
def averaged_weights(trainer: lightning.Trainer, module: lightning.LightningModule) -> Iterator[None]:
    """Give the module its averaged weights inside the block. Without `callbacks=ema`, this has no effect."""
    averaging = next((c for c in trainer.callbacks if isinstance(c, WeightAveraging)), None)  # type: ignore[attr-defined]
    if averaging is None:
        yield
        return
    # Lightning swaps the weights around a validation epoch; stylesim has none and evaluates in RetrievalProbe instead.
    averaging.on_validation_epoch_start(trainer, module)
    try:
        yield
    finally:
        averaging.on_validation_epoch_end(trainer, module)
