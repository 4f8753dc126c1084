"""Gradient clipping: by the global norm, or per tensor as the published code does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor

from stylesim.core.errors import StylesimError


def clip_gradients(
    parameters: Iterable[torch.nn.Parameter],
    max_norm: float,
    mode: Literal["global", "per_tensor"] = "global",
) -> Float[Tensor, ""]:
    """Scale gradients in place by `min(1, max_norm / (norm + 1e-6))`, without waiting for the device.

    Args:
        parameters: those without a gradient are passed over.
        max_norm: above 0; infinity measures only.
        mode: `global` takes the norm of all gradients together and keeps their direction. `per_tensor` takes
            each tensor's own (the published code, with 3.0), which bends the direction of the step.

    Returns:
        The global L2 norm before clipping, in both modes. An infinite or NaN norm is returned as it is and
        the gradients are not mended: under fp16 the gradient scaler skips that step, else the caller must.
    """
    if not max_norm > 0:
        raise StylesimError(f"Gradients cannot be clipped to a norm of {max_norm}; give a number above 0.")
    if mode not in ("global", "per_tensor"):
        raise StylesimError(f"The clipping mode is {mode!r}; choose 'global' or 'per_tensor'.")
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    norms = torch.stack(torch._foreach_norm(gradients))
    if isinstance(norms, DTensor):  # of gradients that are divided among processes; so far each knows its parts
        norms = norms.full_tensor()
        gradients = [gradient.to_local() for gradient in gradients]  # type: ignore[attr-defined]
    total = torch.linalg.vector_norm(norms)
    limited = norms if mode == "per_tensor" else total.expand_as(norms)
    scales = (max_norm / (limited + 1e-6)).clamp(max=1)
    torch._foreach_mul_(gradients, list(scales))
    return total
