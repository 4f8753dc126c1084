"""Optimisers with separate learning rates for the backbone and the heads, and their schedule.

    learning rate of a step = base rate x global batch / 256 x schedule(step)

The global batch counts images (not views) per optimiser step: batch per process x processes x accumulated
micro-batches. With the paper's 16 x 4 and base rates of 0.003 and 1e-4, the heads train at 7.5e-4 and the backbone
at 2.5e-5.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol

import torch
from torch.optim.lr_scheduler import LambdaLR

from stylesim.core.errors import ConfigError

Schedule = Literal["constant", "cosine"]


class Trainable(Protocol):
    """What the optimisers need of an encoder."""

    def parameter_groups(self) -> dict[str, list[tuple[str, torch.nn.Parameter]]]:
        """Return the named parameters under `backbone` and `head`."""
        ...


def sgd(
    encoder: Trainable,
    *,
    global_batch: int,
    max_steps: int,
    head_lr: float = 0.003,
    backbone_lr: float = 1e-4,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    reference_batch: int = 256,
    warmup_steps: int = 0,
    schedule: Schedule = "constant",
) -> tuple[torch.optim.SGD, LambdaLR]:
    """Build the paper's optimiser (section 6), with weight decay on backbone matrices only, as in the published code.

    Args:
        encoder: Its trainable parameters are optimised.
        global_batch: Images per optimiser step, over all processes and accumulated micro-batches.
        max_steps: Optimiser steps of the whole run, at which the cosine ends.
        head_lr: Base learning rate of the heads, at `reference_batch` images per step.
        backbone_lr: Base learning rate of the backbone, at `reference_batch` images per step.
        momentum: Momentum of SGD.
        weight_decay: Not applied to biases, other 1-D parameters and heads.
        reference_batch: Images per step to which the base rates apply.
        warmup_steps: Steps of linear growth from 0 (published code: 30,000).
        schedule: After the warm-up, `constant` or `cosine` down to 0.

    Returns:
        The optimiser, with groups named `backbone`, `backbone_no_decay` and `head` (without those that have no
        trainable parameters), and a scheduler to be stepped once per optimiser step.

    Raises:
        ConfigError: If there is nothing to train, the schedule is unknown, or the warm-up is longer than the run.
    """
    scale = global_batch / reference_batch
    groups = _groups(encoder, head_lr * scale, backbone_lr * scale, weight_decay)
    optimizer = torch.optim.SGD(groups, momentum=momentum)
    return optimizer, _scheduler(optimizer, schedule, warmup_steps, max_steps)


def adamw(
    encoder: Trainable,
    *,
    global_batch: int,
    max_steps: int,
    head_lr: float = 1e-3,
    backbone_lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.05,
    reference_batch: int = 256,
    warmup_steps: int = 0,
    schedule: Schedule = "cosine",
) -> tuple[torch.optim.AdamW, LambdaLR]:
    """Build AdamW with the parameter groups, scaling and schedules of `sgd`, for networks trained from scratch.

    Args:
        encoder: Its trainable parameters are optimised.
        global_batch: Images per optimiser step, over all processes and accumulated micro-batches.
        max_steps: Optimiser steps of the whole run, at which the cosine ends.
        head_lr: Base learning rate of the heads, at `reference_batch` images per step.
        backbone_lr: Base learning rate of the backbone, at `reference_batch` images per step.
        betas: Coefficients of AdamW's running averages.
        weight_decay: Not applied to biases, other 1-D parameters and heads.
        reference_batch: Images per step to which the base rates apply.
        warmup_steps: Steps of linear growth from 0.
        schedule: After the warm-up, `constant` or `cosine` down to 0.

    Returns:
        An optimiser and a scheduler, as from `sgd`.

    Raises:
        ConfigError: As for `sgd`.
    """
    scale = global_batch / reference_batch
    groups = _groups(encoder, head_lr * scale, backbone_lr * scale, weight_decay)
    optimizer = torch.optim.AdamW(groups, betas=(betas[0], betas[1]))  # a configuration gives a list
    return optimizer, _scheduler(optimizer, schedule, warmup_steps, max_steps)


def _groups(encoder: Trainable, head_lr: float, backbone_lr: float, weight_decay: float) -> list[dict[str, Any]]:
    trainable = {
        name: [parameter for _, parameter in named if parameter.requires_grad]
        for name, named in encoder.parameter_groups().items()
    }
    matrices = [parameter for parameter in trainable["backbone"] if parameter.ndim > 1]
    vectors = [parameter for parameter in trainable["backbone"] if parameter.ndim <= 1]
    groups = [
        {"name": "backbone", "params": matrices, "lr": backbone_lr, "weight_decay": weight_decay},
        {"name": "backbone_no_decay", "params": vectors, "lr": backbone_lr, "weight_decay": 0.0},
        {"name": "head", "params": trainable["head"], "lr": head_lr, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ConfigError("The encoder has no trainable parameters: unfreeze its heads or its backbone.")
    return groups


def _scheduler(optimizer: torch.optim.Optimizer, schedule: Schedule, warmup_steps: int, max_steps: int) -> LambdaLR:
    if schedule not in ("constant", "cosine"):
        raise ConfigError(f"optim.schedule must be 'constant' or 'cosine', got {schedule!r}.")
    if warmup_steps > max_steps:
        raise ConfigError(
            f"optim.warmup_steps must not exceed trainer.max_steps, got {warmup_steps} and {max_steps}: "
            "the run would never reach its learning rate."
        )

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        if schedule == "constant":
            return 1.0
        done = (step - warmup_steps) / max(max_steps - warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return LambdaLR(optimizer, factor)
