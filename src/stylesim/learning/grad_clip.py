"""Clip gradients by their global norm, or per tensor as the published code does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor

from stylesim.core.errors import ConfigError


def clip_gradients(
    parameters: Iterable[torch.nn.Parameter],
    max_norm: float,
    mode: Literal["global", "per_tensor"] = "global",
) -> Float[Tensor, ""]:
    """Scale gradients in place by `min(1, max_norm / (norm + 1e-6))`, without synchronising with the device.

    Args:
        parameters: The parameters; those without a gradient are skipped.
        max_norm: Above 0. With infinity the norm is only measured.
        mode: `global` uses the norm of all gradients together and keeps the direction of the step. `per_tensor` uses
            the norm of each tensor, as the published code does (with 3.0), and changes the direction.

    Returns:
        The global L2 norm before clipping, in both modes. It may be infinite or NaN, in which case the gradients are
        unusable: under fp16 the gradient scaler skips that step, otherwise the caller has to.

    Raises:
        ConfigError: If `max_norm` is not above 0, or `mode` is unknown.
    """
    if not max_norm > 0:
        raise ConfigError(f"learning.clip_norm must be a number above 0, or null to not clip, got {max_norm}.")
    if mode not in ("global", "per_tensor"):
        raise ConfigError(f"learning.clip_mode must be 'global' or 'per_tensor', got {mode!r}.")
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    norms = torch.stack(torch._foreach_norm(gradients))
    if isinstance(norms, DTensor):  # gradients are sharded, and each process knows only the norms of its own shards
        norms = norms.full_tensor()
        gradients = [gradient.to_local() for gradient in gradients]  # type: ignore[attr-defined]
    total = torch.linalg.vector_norm(norms)
    limited = norms if mode == "per_tensor" else total.expand_as(norms)
    scales = (max_norm / (limited + 1e-6)).clamp(max=1)
    torch._foreach_mul_(gradients, list(scales))
    return total
