"""Gradient reversal (Ganin and Lempitsky 2015): the identity in the forward pass, times -alpha in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.alpha * gradients[0], None


def reverse_gradient(features: Float[Tensor, "*n"], alpha: float) -> Float[Tensor, "*n"]:
    """Return `features` unchanged; the gradient that flows back through them is multiplied by `-alpha`."""
    return _Reversal.apply(features, alpha)
