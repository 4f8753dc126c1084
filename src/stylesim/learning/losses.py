"""The losses of Contrastive Style Descriptors (arXiv 2404.01292), as pure functions.

One loss serves three purposes, because an image's identity is a tag that only its own views share:

- supervised: the first view of each image, with its style tags;
- self-supervised: all the views, each tagged with the image it shows (NT-Xent, the loss of SimCLR);
- content, for the adversarial path: the same self-supervised loss on the content head's descriptors, which
  the encoder feeds through a gradient reversal.

Each has two versions: *exact*, what the mathematics says, and *reference*, what the published code computes.
Similarities are taken in float32 at least, also under autocast (float64 stays float64).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stylesim.errors import StylesimError

REFERENCE_EPSILON = 1e-6


def contrastive_loss(
    descriptors: Float[Tensor, "n d"], tags: Bool[Tensor, "n t"], temperature: float, reference: bool = False
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

    Returns:
        A scalar, 0 but differentiable for an empty batch.
    """
    if temperature <= 0:
        raise StylesimError(f"The loss's temperature is {temperature}; give one above 0 (the paper's is 0.1).")
    if len(descriptors) == 0:
        return descriptors.sum()
    with torch.autocast(descriptors.device.type, enabled=False):
        descriptors = descriptors.to(torch.promote_types(descriptors.dtype, torch.float32))
        labels = tags.to(descriptors.dtype)
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        shared = (labels @ labels.T).masked_fill(itself, 0)
        logits = descriptors @ descriptors.T / temperature
        if reference:
            logits = logits - logits.amax(dim=1, keepdim=True).detach()
            others = logits.exp().masked_fill(itself, 0).sum(dim=1, keepdim=True)
            log_p = logits - (others + REFERENCE_EPSILON).log()
            weights = shared / (shared.sum(dim=1, keepdim=True) + REFERENCE_EPSILON)
            return -temperature * (weights * log_p).sum(dim=1).mean()
        # The lowest finite number instead of -inf: its softmax is exactly 0, but a lone anchor's row, where
        # every logit is masked, gives a finite number too, and so a gradient without NaN.
        log_p = logits.masked_fill(itself, torch.finfo(logits.dtype).min).log_softmax(dim=1)
        positive = shared > 0
        per_anchor = log_p.where(positive, 0).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
        return -per_anchor.mean()


def instance_loss(views: Float[Tensor, "v n d"], temperature: float, reference: bool = False) -> Float[Tensor, ""]:
    """NT-Xent: every view is an anchor, the other views of its image are its positives.

    With two views these are the 2n anchors of SimCLR (arXiv 2002.05709, equation 1); one view alone has no
    positives and gives 0. See `contrastive_loss` for the formulas and for what `reference` changes.
    """
    v, n, _ = views.shape
    identity = torch.eye(n, dtype=torch.bool, device=views.device).repeat(v, 1)
    return contrastive_loss(views.flatten(0, 1), identity, temperature, reference)


def content_loss(views: Float[Tensor, "v n d"], temperature: float = 0.1, reference: bool = False) -> Float[Tensor, ""]:
    """The adversarial content path's term: `instance_loss` on the content head's descriptors.

    Behind the encoder's gradient reversal (see `reversal_strength`), the head learns to recognise an image
    and the backbone to prevent it. The published code does this on the plain image and a view distorted in
    colour, with the style loss's temperature, and adds the term with weight `lambda_c` (0 unless set).
    """
    return instance_loss(views, temperature, reference)


def csd_loss(
    views: Float[Tensor, "v n d"],
    tags: Bool[Tensor, "n t"],
    temperature: float,
    supervised_weight: float,
    ssl_weight: float = 1.0,
    reference: bool = False,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """`supervised_weight * contrastive_loss(views[0], tags) + ssl_weight * instance_loss(views)`.

    The paper's `L_MCL + 0.2 L_SSL` and the published code's `5 L_MCL + L_SSL` have the same proportions; with
    the code's factor `temperature` (0.1) its total is half the paper's.

    Args:
        views: L2-normalised descriptors of the global batch.
        tags: multi-hot, one row per image.

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
        parts["supervised"] = contrastive_loss(views[0], tags, temperature, reference)
        terms.append(supervised_weight * parts["supervised"])
        repeated = tags & (tags.sum(dim=0) > 1)
        parts["anchors_with_positive"] = repeated.any(dim=1).float().sum() / max(len(tags), 1)
    if ssl_weight:
        parts["ssl"] = instance_loss(views, temperature, reference)
        terms.append(ssl_weight * parts["ssl"])
    return torch.stack(terms).sum(), {name: part.detach() for name, part in parts.items()}


def reversal_strength(progress: float) -> float:
    """The gradient reversal's factor alpha, from 0 to (almost) 1: `2 / (1 + exp(-10 progress)) - 1`.

    `progress` is the share of steps done, in [0, 1] (Ganin et al., arXiv 1505.07818).
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1
