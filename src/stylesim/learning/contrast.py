"""Compute the contrastive loss together with its gradient, chunk by chunk, without storing the similarities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from stylesim.core.errors import ConfigError

REFERENCE_EPSILON = 1e-6
PAIRS_PER_CHUNK = 1 << 24
"""Pairs of descriptors compared at a time, which bounds the memory (64 MiB per temporary tensor in float32)."""


def check_temperature(temperature: float) -> None:
    """Raise a ConfigError unless a temperature is above 0."""
    if not temperature > 0:
        raise ConfigError(f"loss.temperature must be above 0, got {temperature}; the paper uses 0.1.")


def contrast(
    descriptors: Float[Tensor, "n d"],
    anchors: Int[Tensor, " a"],
    shared_labels: Callable[[Int[Tensor, " c"]], Tensor],
    temperature: float,
    reference: bool,
) -> Float[Tensor, ""]:
    """Return the contrastive loss of some anchors (see `contrastive_loss` for the formulas).

    Args:
        descriptors: L2-normalised descriptors of the global batch.
        anchors: Indices of the anchors whose terms are summed; the sum is divided by `n`.
        shared_labels: Maps the indices of a chunk of anchors to the number of labels that they share with each image,
            `[c n]`.
        temperature: Above 0.
        reference: Compute the reference version.

    Raises:
        ConfigError: If the temperature is not above 0.
    """
    check_temperature(temperature)
    with torch.autocast(descriptors.device.type, enabled=False):
        descriptors = descriptors.to(torch.promote_types(descriptors.dtype, torch.float32))
        return _Contrast.apply(descriptors, anchors, shared_labels, temperature, reference)


class _Contrast(torch.autograd.Function):
    """Computes the gradient together with the value, chunk by chunk.

    No similarity is computed twice and none is stored; the backward pass only scales the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        descriptors: Float[Tensor, "n d"],
        anchors: Int[Tensor, " a"],
        shared_labels: Callable[[Int[Tensor, " c"]], Tensor],
        temperature: float,
        reference: bool,
    ) -> Float[Tensor, ""]:
        loss, gradient = descriptors.new_zeros(()), torch.zeros_like(descriptors)
        chunk_size = max(1, PAIRS_PER_CHUNK // max(1, len(descriptors)))
        scale = (temperature if reference else 1) / max(1, len(descriptors))
        for start in range(0, len(anchors), chunk_size):
            rows = anchors[start : start + chunk_size]
            logits = (descriptors[rows] @ descriptors.T).div_(temperature)
            terms, logit_gradient = _anchor_terms(logits, shared_labels(rows).to(descriptors.dtype), rows, reference)
            loss += terms.sum() * scale
            logit_gradient *= scale / temperature
            gradient[rows] += logit_gradient @ descriptors
            gradient.addmm_(logit_gradient.T, descriptors[rows])
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        return ctx.saved_tensors[0] * gradients[0], None, None, None, None


def _anchor_terms(
    logits: Float[Tensor, "c n"], weights: Float[Tensor, "c n"], rows: Int[Tensor, " c"], reference: bool
) -> tuple[Float[Tensor, "c 1"], Float[Tensor, "c n"]]:
    """Compute `-sum_j w_ij log p_ij` of each anchor i, and its gradient with respect to the logits.

    The weights w_ij of an anchor are normalised to sum to 1. Overwrites both `logits` and `weights`.
    """
    self_column = rows[:, None]
    maximum = logits.amax(dim=1, keepdim=True)
    # The lowest finite number instead of -inf: its exponential is also 0, but multiplying it by 0 does not give NaN.
    logits.scatter_(1, self_column, torch.finfo(logits.dtype).min)
    weights.scatter_(1, self_column, 0)
    if reference:
        weights /= weights.sum(dim=1, keepdim=True) + REFERENCE_EPSILON
    else:
        # Without the self-similarity, compared with which all others can underflow.
        maximum = logits.amax(dim=1, keepdim=True)
        weights.sign_()
        weights /= weights.sum(dim=1, keepdim=True).clamp(min=1)
    logits -= maximum
    weight_sum = weights.sum(dim=1, keepdim=True)  # 0 for an anchor without positives
    terms = -(weights * logits).sum(dim=1, keepdim=True)
    p = logits.exp_()
    normaliser = p.sum(dim=1, keepdim=True) + (REFERENCE_EPSILON if reference else 0)
    terms += weight_sum * normaliser.log()
    return terms, p.mul_(weight_sum / normaliser).sub_(weights)
