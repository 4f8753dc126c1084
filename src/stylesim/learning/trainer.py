"""Build the Lightning Trainer: steps instead of epochs, and checkpoints that are written atomically."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar, WeightAveraging
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.strategies import DDPStrategy
from pydantic import PositiveInt

from stylesim.core.errors import ConfigError
from stylesim.core.files import atomic_path
from stylesim.learning.fsdp import ShardedStrategy

PROFILES = "fit-profile*.txt"
"""The files of a run folder that hold the report of each rank's profiler; rank 0's comes first in their order."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint atomically, so that a run killed while it saves keeps the previous one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint beside its place, force it to disk, and move it into place."""
        with atomic_path(path) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())


_STRATEGIES: dict[str, Callable[[], Any]] = {
    "auto": lambda: "auto",
    "ddp": partial(DDPStrategy, gradient_as_bucket_view=True),
    "fsdp": ShardedStrategy,
}


_PROFILERS: dict[str, Callable[..., Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def build_trainer(
    *,
    max_steps: PositiveInt,
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
    """Build a Trainer that runs for `max_steps` optimiser steps.

    Args:
        max_steps: Optimiser steps of the whole run.
        accelerator: `auto` is CUDA, MPS or CPU.
        devices: Devices of this node, with one process each; `auto` uses all of them.
        num_nodes: Number of machines. If there are several, torchrun or SLURM must start the processes.
        strategy: `ddp` for more than one process; `fsdp` also shards weights, gradients and optimiser state among the
            devices of a node, for encoders too large to be trained on one.
        precision: Lightning's precision: `32-true`, `bf16-mixed`, `16-mixed` or `bf16-true`.
        accumulate_grad_batches: Micro-batches per step. Images of different micro-batches are not compared.
        log_every_n_steps: Optimiser steps between two logged values.
        profiler: Name of a Lightning profiler. Its report is written into the run folder.
        matmul_precision: Precision of float32 matrix products; `high` is TF32 on GPUs that have it.
        threads: CPU threads per process; None leaves the choice to torch.
        callbacks: Lightning callbacks.
        logger: Lightning loggers.
        run_dir: The run folder.

    Returns:
        The Trainer.

    Raises:
        ConfigError: If there is no step, the devices are not available, or `callbacks=ema` is combined with
            `strategy="fsdp"`.
    """
    silence_lightning()
    if max_steps < 1:
        raise ConfigError(f"trainer.max_steps must be a positive integer, got {max_steps}.")
    if strategy == "fsdp" and any(isinstance(callback, WeightAveraging) for callback in callbacks or ()):
        raise ConfigError(
            "callbacks=ema cannot average weights that are sharded by trainer.strategy=fsdp. Use only one of the two."
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
            profiler=_profiler(profiler, run_dir),
            limit_val_batches=0,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            plugins=[AtomicCheckpointIO()],
            callbacks=callbacks,
            logger=logger,
            default_root_dir=run_dir,
        )
    except (MisconfigurationException, ValueError) as error:
        advice = " trainer.accelerator=auto takes what this machine has." if accelerator not in ("auto", "cpu") else ""
        raise ConfigError(f"The trainer cannot be built as configured (trainer.*): {error}{advice}") from error


def _profiler(name: str | None, run_dir: str | None) -> Profiler | None:
    if name is None:
        return None
    return _PROFILERS[name](dirpath=run_dir, filename="profile")


def silence_lightning() -> None:
    """Turn off the messages that Lightning prints for every run, and its warnings about what is intended here.

    Call before the loggers are built, since they warn about the run folder.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in (
        "Found .* module\\(s\\) in eval mode",  # see StyleModule
        "You're resuming from a checkpoint that ended before the epoch ended",  # the stream resumes at its position
        "Experiment logs directory .* exists and is not empty",  # the run folder
        ".*isinstance\\(treespec, LeafSpec\\)",
        ".*does not have many workers",
        "You're using the WeightAveraging callback with a model that overrides",  # configure_model only shards
    ):
        warnings.filterwarnings("ignore", pattern)
