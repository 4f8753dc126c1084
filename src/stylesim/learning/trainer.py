"""Builds the Lightning Trainer as stylesim runs it: steps instead of epochs, checkpoints that are whole or absent."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar, WeightAveraging
from lightning.pytorch.strategies import DDPStrategy

from stylesim.core.errors import StylesimError
from stylesim.learning.fsdp import ShardedStrategy


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside and renames, so that a run killed while it saves still has the checkpoint before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        partial = Path(f"{path}.partial")
        super().save_checkpoint(checkpoint, partial, storage_options)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)


_STRATEGIES: dict[str, Callable[[], Any]] = {
    "auto": lambda: "auto",
    "ddp": partial(DDPStrategy, gradient_as_bucket_view=True),
    "fsdp": ShardedStrategy,
}


def build_trainer(
    *,
    max_steps: int,
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    num_nodes: int = 1,
    strategy: Literal["auto", "ddp", "fsdp"] = "auto",
    precision: str = "32-true",
    accumulate_grad_batches: int = 1,
    log_every_n_steps: int = 10,
    profiler: Literal["simple", "advanced", "pytorch"] | None = None,
    matmul_precision: Literal["highest", "high", "medium"] = "high",
    threads: int | None = None,
    callbacks: Any = None,
    logger: Any = None,
    run_dir: str | None = None,
) -> lightning.Trainer:
    """A Trainer whose length is `max_steps` optimiser steps.

    Args:
        max_steps: Optimiser steps of the whole run.
        accelerator: `auto` is CUDA, MPS or CPU.
        devices: Processes of this node, one per device; `auto` is all of them.
        num_nodes: Machines; started by torchrun or SLURM where it is more than one.
        strategy: `ddp` for more than one process; `fsdp` divides weights, gradients and optimiser state among the
            devices of a node as well, for encoders that cannot be trained on one.
        precision: Lightning's: `32-true`, `bf16-mixed`, `16-mixed`, `bf16-true`.
        accumulate_grad_batches: Micro-batches of a step. They do not see each other's negatives.
        log_every_n_steps: Cadence of the loggers, in optimiser steps.
        profiler: Lightning's profiler of that name; its report goes into the run folder.
        matmul_precision: Of float32 products; `high` is TF32 on a GPU that has it.
        threads: Threads of one process on the CPU; None leaves torch's choice.

    Raises:
        StylesimError: If the devices that are asked for are not there, or weights are to be averaged and divided.
    """
    _quieten()
    if strategy == "fsdp" and any(isinstance(callback, WeightAveraging) for callback in callbacks or ()):
        raise StylesimError(
            "callbacks=ema cannot average weights that trainer.strategy=fsdp has divided: leave one of the two out."
        )
    torch.set_float32_matmul_precision(matmul_precision)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        return lightning.Trainer(
            max_steps=max_steps,
            max_epochs=-1,
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=_STRATEGIES[strategy](),
            precision=precision,  # type: ignore[arg-type]
            accumulate_grad_batches=accumulate_grad_batches,
            log_every_n_steps=log_every_n_steps,
            enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks or ()),
            enable_model_summary=False,
            profiler=profiler,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            plugins=[AtomicCheckpointIO()],
            callbacks=callbacks,
            logger=logger,
            default_root_dir=run_dir,
        )
    except (MisconfigurationException, ValueError) as error:
        raise StylesimError(f"The trainer cannot be built as configured (trainer.*): {error}") from error


def _quieten() -> None:
    """Leave out what Lightning says of every run, and its warnings about what is meant here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for meant in (
        "Found .* module\\(s\\) in eval mode",  # see StyleModule
        "You're resuming from a checkpoint that ended before the epoch ended",  # the stream knows its place
        "Experiment logs directory .* exists and is not empty",  # the run folder
        ".*isinstance\\(treespec, LeafSpec\\)",
        ".*does not have many workers",
        "You're using the WeightAveraging callback with a model that overrides",  # only to shard, which it then cannot
    ):
        warnings.filterwarnings("ignore", meant)
