"""The losses of Contrastive Style Descriptors (arXiv 2404.01292), as pure functions.

One loss serves three purposes, because an image's identity is a tag that only its own views share:

- supervised: the first view of each image, with its style tags;
- self-supervised: all the views, each tagged with the image it shows (NT-Xent, the loss of SimCLR);
- content, for the adversarial path: the same self-supervised loss on the content head's descriptors, which
  the encoder feeds through a gradient reversal.

Each has two versions: *exact*, what the mathematics says, and *reference*, what the published code computes.
Similarities are taken in float32 at least, also under autocast (float64 stays float64).

A loss is a mean over anchors, and every process of a run can answer for its own: `anchors` says which images'
terms are summed, out of the global batch that they are compared with. The processes' shares add up to the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from stylesim.core.errors import StylesimError

REFERENCE_EPSILON = 1e-6
EVERY = slice(None)
PAIRS_AT_ONCE = 1 << 24
"""How many pairs of descriptors are compared at once: what bounds the memory (64 MiB for each step in float32)."""


def contrastive_loss(
    descriptors: Float[Tensor, "n d"],
    tags: Bool[Tensor, "n t"],
    temperature: float,
    reference: bool = False,
    anchors: slice = EVERY,
) -> Float[Tensor, ""]:
    """Draw descriptors that share a tag together, and all others apart.

    With `z_ij = <f_i, f_j> / temperature` and `log p_ij = z_ij - log sum_{k != i} exp z_ik`:

    - exact: the mean over all anchors i of the mean over i's positives j of `-log p_ij`. A positive shares at
      least one tag with its anchor; an anchor without positives counts 0 and stays in the mean.
    - reference: `-temperature * mean_i [ sum_j m_ij log p_ij / (sum_j m_ij + 1e-6) ]`, where `m_ij` is the
      *number* of tags that i and j share (0 for i = j). The row's maximum, which is its self-similarity, is
      subtracted from z without a gradient, and 1e-6 is added to the sum under the logarithm after that. The
      factor and the epsilons make the published temperature act on the learning rate as well.

    Args:
        descriptors: L2-normalised.
        tags: multi-hot; an image may have any number of tags, none included.
        temperature: above 0; 0.1 in the paper.
        anchors: images whose terms are summed, divided by `n` all the same.

    Returns:
        A scalar, 0 but differentiable for an empty batch.
    """
    labels = tags.to(torch.promote_types(descriptors.dtype, torch.float32))
    rows = torch.arange(len(tags), device=tags.device)[anchors]
    return _contrast(descriptors, rows, lambda some: labels[some] @ labels.T, temperature, reference)


def instance_loss(
    views: Float[Tensor, "v n d"], temperature: float, reference: bool = False, anchors: slice = EVERY
) -> Float[Tensor, ""]:
    """NT-Xent: every view is an anchor, the other views of its image are its positives.

    With two views these are the 2n anchors of SimCLR (arXiv 2002.05709, equation 1); one view alone has no
    positives and gives 0. See `contrastive_loss` for the formulas and for what `reference` changes; `anchors`
    are images, with all their views.
    """
    v, n, _ = views.shape
    image = torch.arange(n, device=views.device).repeat(v)
    rows = torch.arange(v * n, device=views.device).view(v, n)[:, anchors].flatten()
    return _contrast(views.flatten(0, 1), rows, lambda some: image[some, None] == image, temperature, reference)


def content_loss(
    views: Float[Tensor, "v n d"], temperature: float = 0.1, reference: bool = False, anchors: slice = EVERY
) -> Float[Tensor, ""]:
    """The adversarial content path's term: `instance_loss` on the content head's descriptors.

    Behind the encoder's gradient reversal (see `reversal_strength`), the head learns to recognise an image
    and the backbone to prevent it. The published code does this on the plain image and a view distorted in
    colour, with the style loss's temperature, and adds the term with weight `lambda_c` (0 unless set).
    """
    return instance_loss(views, temperature, reference, anchors)


def _contrast(
    descriptors: Float[Tensor, "n d"],
    anchors: Int[Tensor, " a"],
    shared: Callable[[Tensor], Tensor],
    temperature: float,
    reference: bool,
) -> Float[Tensor, ""]:
    """The terms of `anchors` in the mean; `shared` gives the tags `[c n]` that some of them share with everyone."""
    if temperature <= 0:
        raise StylesimError(f"The loss's temperature is {temperature}; give one above 0 (the paper's is 0.1).")
    with torch.autocast(descriptors.device.type, enabled=False):
        descriptors = descriptors.to(torch.promote_types(descriptors.dtype, torch.float32))
        return _Contrast.apply(descriptors, anchors, shared, temperature, reference)  # type: ignore[return-value]


class _Contrast(torch.autograd.Function):
    """Makes the gradient together with the value, while the similarities of a few anchors are at hand.

    So no similarity is computed twice, none is kept, and backward only scales.
    """

    @staticmethod
    def forward(
        ctx: Any,
        keys: Float[Tensor, "n d"],
        anchors: Int[Tensor, " a"],
        shared: Callable[[Tensor], Tensor],
        temperature: float,
        reference: bool,
    ) -> Float[Tensor, ""]:
        loss, gradient = keys.new_zeros(()), torch.zeros_like(keys)
        at_once = max(1, PAIRS_AT_ONCE // max(1, len(keys)))
        scale = (temperature if reference else 1) / max(1, len(keys))
        for start in range(0, len(anchors), at_once):
            rows = anchors[start : start + at_once]
            logits = (keys[rows] @ keys.T).div_(temperature)
            terms, slopes = _terms(logits, shared(rows).to(keys.dtype), rows, reference)
            loss += terms.sum() * scale
            slopes *= scale / temperature
            gradient[rows] += slopes @ keys
            gradient.addmm_(slopes.T, keys[rows])
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        return ctx.saved_tensors[0] * gradients[0], None, None, None, None


def _terms(
    logits: Float[Tensor, "c n"], weights: Float[Tensor, "c n"], rows: Int[Tensor, " c"], reference: bool
) -> tuple[Float[Tensor, "c 1"], Float[Tensor, "c n"]]:
    """`-sum_j w_ij log p_ij` of each anchor, where w sums to 1, and its derivative by the logits; overwrites both."""
    itself = rows[:, None]
    highest = logits.amax(dim=1, keepdim=True)
    # The lowest finite number instead of -inf: its exponential is 0, but times a weight of 0 it is no NaN.
    logits.scatter_(1, itself, torch.finfo(logits.dtype).min)
    weights.scatter_(1, itself, 0)
    if reference:
        weights /= weights.sum(dim=1, keepdim=True) + REFERENCE_EPSILON
    else:
        highest = logits.amax(dim=1, keepdim=True)  # of the others: they might vanish beside a sharp self-similarity
        weights.sign_()
        weights /= weights.sum(dim=1, keepdim=True).clamp(min=1)
    logits -= highest
    whole = weights.sum(dim=1, keepdim=True)  # 0 for an anchor without positives
    terms = -(weights * logits).sum(dim=1, keepdim=True)
    p = logits.exp_()
    normaliser = p.sum(dim=1, keepdim=True) + (REFERENCE_EPSILON if reference else 0)
    terms += whole * normaliser.log()
    return terms, p.mul_(whole / normaliser).sub_(weights)


def csd_loss(
    views: Float[Tensor, "v n d"],
    tags: Bool[Tensor, "n t"],
    temperature: float,
    supervised_weight: float,
    ssl_weight: float = 1.0,
    reference: bool = False,
    anchors: slice = EVERY,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """`supervised_weight * contrastive_loss(views[0], tags) + ssl_weight * instance_loss(views)`.

    The paper's `L_MCL + 0.2 L_SSL` and the published code's `5 L_MCL + L_SSL` have the same proportions; with
    the code's factor `temperature` (0.1) its total is half the paper's.

    Args:
        views: L2-normalised descriptors of the global batch.
        tags: multi-hot, one row per image.
        anchors: images whose share of total and parts is computed; the shares of all images add up to them.

    Returns:
        The total, and its parts, detached and unweighted: `supervised` with `anchors_with_positive` (the
        share of images, in [0, 1], with a tag in common with another one), and `ssl`. A term with weight 0
        costs nothing and has no parts.

    Raises:
        StylesimError: a negative weight, no positive weight, or a temperature that is not above 0.
    """
    if min(supervised_weight, ssl_weight) < 0 or max(supervised_weight, ssl_weight) == 0:
        raise StylesimError(
            f"The loss's weights are {supervised_weight} (supervised) and {ssl_weight} (SSL); "
            "neither may be negative and one must be above 0, or there is nothing to learn."
        )
    terms, parts = [], {}
    if supervised_weight:
        parts["supervised"] = contrastive_loss(views[0], tags, temperature, reference, anchors)
        terms.append(supervised_weight * parts["supervised"])
        repeated = tags & (tags.sum(dim=0) > 1)
        parts["anchors_with_positive"] = repeated[anchors].any(dim=1).float().sum() / max(len(tags), 1)
    if ssl_weight:
        parts["ssl"] = instance_loss(views, temperature, reference, anchors)
        terms.append(ssl_weight * parts["ssl"])
    return torch.stack(terms).sum(), {name: part.detach() for name, part in parts.items()}


def reversal_strength(progress: float) -> float:
    """The gradient reversal's factor alpha, from 0 to (almost) 1: `2 / (1 + exp(-10 progress)) - 1`.

    `progress` is the share of steps done, in [0, 1] (Ganin et al., arXiv 1505.07818).
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1
