"""Measure the throughput of a run: views per second, time spent waiting for data, memory and FLOPs utilisation."""

from __future__ import annotations

import resource
import time
from typing import Any

import lightning
import torch

from stylesim.learning.flops import forward_flops, peak_flops
from stylesim.learning.fsdp import unsharded_weights


class Throughput(lightning.Callback):
    """Logs the speed of a run once per logging interval.

    - `throughput/views_per_s`: views trained on per second, over all ranks;
    - `throughput/waiting`: fraction of this rank's time spent waiting for the next batch, in [0, 1];
    - `throughput/memory_gib`: peak memory of the device, or of the process on a CPU, in GiB;
    - `throughput/mfu`: model FLOPs utilisation in [0, 1], if the peak rate of the device is known. A training step is
      assumed to take 3 times the FLOPs of the forward pass, which torch's counter counts once.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.flops_per_view = 0.0
        self.peak = peak_flops(trainer.strategy.root_device, _matmul_dtype(trainer.precision))
        self._reset(trainer)

    def _reset(self, trainer: lightning.Trainer) -> None:
        self.since, self.views = time.perf_counter(), 0
        self.waited = trainer.datamodule.loader.seconds_waited  # type: ignore[attr-defined]

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.peak and not self.flops_per_view:
            image = pl_module.encoder.preprocessing.normalise(batch.views[0, :1])
            with unsharded_weights(pl_module.encoder):
                self.flops_per_view = forward_flops(pl_module.encoder, image)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.views += batch.views.shape[0] * batch.views.shape[1]
        step = trainer.global_step
        if step % trainer.log_every_n_steps or (batch_idx + 1) % trainer.accumulate_grad_batches:  # type: ignore[attr-defined]
            return
        elapsed = time.perf_counter() - self.since
        rate = self.views / elapsed
        metrics = {
            "throughput/views_per_s": rate * trainer.world_size,
            "throughput/waiting": (trainer.datamodule.loader.seconds_waited - self.waited) / elapsed,  # type: ignore[attr-defined]
            "throughput/memory_gib": _peak_memory(trainer.strategy.root_device) / 2**30,
        }
        if self.peak:
            metrics["throughput/mfu"] = 3 * self.flops_per_view * rate / self.peak
        pl_module.log_dict(metrics)
        self._reset(trainer)


def _matmul_dtype(precision: str) -> torch.dtype:
    return {"bf16": torch.bfloat16, "16": torch.float16}.get(precision.split("-")[0], torch.float32)


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
