"""The losses of Contrastive Style Descriptors (arXiv 2404.01292): pure functions, and `CSDLoss` over them.

All three terms are the same contrastive loss on different views and labels:

- supervised: the first view of each image, labelled with its style tags;
- self-supervised (SSL): all views, each labelled with the image it shows (NT-Xent, the loss of SimCLR);
- content (adversarial): the SSL term on the descriptors of the content head, which follows a gradient reversal layer.

Each term has two versions: *exact*, what the mathematics says, and *reference*, what the published code computes.
Similarities are computed in float32 or better, also under autocast (float64 stays float64). On a GPU,
`torch.set_float32_matmul_precision` applies to them: with `high`, the trainer's default, products are in TF32, and the
relative error of the gradient is 3e-4 (4e-7 with `highest`; see benchmarks/results).

A loss is a mean over anchors, so its computation can be divided among processes. `anchors` selects the images whose
terms are summed; they are compared with the whole global batch. The shares of all processes add up to the loss.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from stylesim.core.errors import ConfigError
from stylesim.learning.contrast import check_temperature, contrast

ALL_ANCHORS = slice(None)


class CSDLoss(nn.Module):
    """The loss of Contrastive Style Descriptors, as `StyleModule` calls it.

    `supervised_weight * contrastive_loss(views[0], tags) + ssl_weight * instance_loss(views)
    + content_weight * content_loss(content)`

    The paper's `L_MCL + 0.2 L_SSL` (section 6, the default) and the published code's `5 L_MCL + L_SSL` have the same
    proportions. It has no parameters, so it adds nothing to a checkpoint.

    Args:
        temperature: Above 0; the paper uses 0.1.
        supervised_weight: Weight of the supervised term, 0 or more.
        ssl_weight: Weight of the self-supervised term, 0 or more; one of the two must be above 0.
        content_weight: Weight of the adversarial content term (the paper's lambda_c), 0 or more. A weight above 0 needs
            an encoder with a content head. The term uses the same views as the style terms; the published code makes
            separate views for it, one of which has changed colours.
        reference: Compute what the published code computes instead of the exact loss (see `contrastive_loss`).

    Raises:
        ConfigError: If a weight or the temperature is out of range.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        supervised_weight: float = 1.0,
        ssl_weight: float = 0.2,
        content_weight: float = 0.0,
        reference: bool = False,
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        _check_weights(supervised_weight, ssl_weight)
        if content_weight < 0:
            raise ConfigError(f"loss.content_weight must be 0 or more, got {content_weight}.")
        self.temperature, self.reference = temperature, reference
        self.supervised_weight, self.ssl_weight, self.content_weight = supervised_weight, ssl_weight, content_weight

    def forward(
        self,
        views: Float[Tensor, "v n d"],
        tags: Bool[Tensor, "n t"],
        *,
        anchors: slice = ALL_ANCHORS,
        content: Float[Tensor, "w n d"] | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the share of `anchors` in the loss of the global batch.

        Args:
            views: L2-normalised style descriptors of the global batch.
            tags: Multi-hot, one row per image.
            anchors: Images whose terms are summed.
            content: L2-normalised descriptors of the content head, if the encoder has one.

        Returns:
            The total, and its detached, unweighted parts: those of `csd_loss`, and `content` if it has a weight.

        Raises:
            ConfigError: If the content term has a weight and `content` is None.
        """
        total, parts = csd_loss(
            views, tags, self.temperature, self.supervised_weight, self.ssl_weight, self.reference, anchors
        )
        if self.content_weight:
            if content is None:
                raise ConfigError(
                    f"A loss with content_weight={self.content_weight} needs content descriptors, got None: "
                    "pass content=[w n d], the descriptors of the content head."
                )
            term = content_loss(content, self.temperature, self.reference, anchors)
            total = total + self.content_weight * term
            parts["content"] = term.detach()
        return total, parts

    def extra_repr(self) -> str:
        """Return the settings, which `print(loss)` shows."""
        names = ("temperature", "supervised_weight", "ssl_weight", "content_weight", "reference")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


def csd_loss(
    views: Float[Tensor, "v n d"],
    tags: Bool[Tensor, "n t"],
    temperature: float,
    supervised_weight: float,
    ssl_weight: float = 1.0,
    reference: bool = False,
    anchors: slice = ALL_ANCHORS,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Compute `supervised_weight * contrastive_loss(views[0], tags) + ssl_weight * instance_loss(views)`.

    The paper's `L_MCL + 0.2 L_SSL` and the published code's `5 L_MCL + L_SSL` have the same proportions; with
    the code's factor `temperature` (0.1) its total is half the paper's.

    Args:
        views: L2-normalised descriptors of the global batch.
        tags: Multi-hot, one row per image.
        temperature: Above 0; the paper uses 0.1.
        supervised_weight: Weight of the supervised term, 0 or more.
        ssl_weight: Weight of the self-supervised term, 0 or more.
        reference: Compute what the published code computes instead of the exact loss (see `contrastive_loss`).
        anchors: Images whose share of the total and of its parts is computed.

    Returns:
        The total, and its parts, detached and unweighted: `supervised` with `anchors_with_positive` (the fraction
        of images, in [0, 1], that share a tag with another one), and `ssl`. A term with weight 0 is not computed
        and has no parts.

    Raises:
        ConfigError: If a weight is negative, both weights are 0, or the temperature is not above 0.
    """
    _check_weights(supervised_weight, ssl_weight)
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


def contrastive_loss(
    descriptors: Float[Tensor, "n d"],
    tags: Bool[Tensor, "n t"],
    temperature: float,
    reference: bool = False,
    anchors: slice = ALL_ANCHORS,
) -> Float[Tensor, ""]:
    """Pull descriptors that share a tag together and push all others apart (a supervised contrastive loss).

    With `z_ij = <f_i, f_j> / temperature` and `log p_ij = z_ij - log sum_{k != i} exp z_ik`:

    - exact: the mean over all anchors i of the mean over i's positives j of `-log p_ij`. A positive shares at
      least one tag with its anchor; an anchor without positives counts as 0 and stays in the mean.
    - reference: `-temperature * mean_i [ sum_j m_ij log p_ij / (sum_j m_ij + 1e-6) ]`, where `m_ij` is the
      *number* of tags that i and j share (0 for i = j). The maximum of each row, which is its self-similarity, is
      subtracted from z without a gradient, and 1e-6 is added to the sum inside the logarithm after that. Because of
      the factor and the epsilons, the published temperature also scales the learning rate.

    Args:
        descriptors: L2-normalised.
        tags: Multi-hot; an image may have any number of tags, including none.
        temperature: Above 0; the paper uses 0.1.
        reference: Compute the reference version.
        anchors: Images whose terms are summed; the sum is divided by `n` in any case.

    Returns:
        A scalar; for an empty batch, a differentiable 0.

    Raises:
        ConfigError: If the temperature is not above 0.
    """
    labels = tags.to(torch.promote_types(descriptors.dtype, torch.float32))
    rows = torch.arange(len(tags), device=tags.device)[anchors]
    return contrast(descriptors, rows, lambda chunk: labels[chunk] @ labels.T, temperature, reference)


def instance_loss(
    views: Float[Tensor, "v n d"], temperature: float, reference: bool = False, anchors: slice = ALL_ANCHORS
) -> Float[Tensor, ""]:
    """NT-Xent: every view is an anchor, and the other views of its image are its positives.

    With two views these are the 2n anchors of SimCLR (arXiv 2002.05709, equation 1); a single view has no
    positives and gives 0. See `contrastive_loss` for the formulas, `reference` and the errors raised.

    Args:
        views: L2-normalised descriptors, one row of images per view.
        temperature: Above 0.
        reference: Compute the reference version.
        anchors: Images, each with all its views, whose terms are summed.

    Returns:
        A scalar; for an empty batch, a differentiable 0.
    """
    v, n, _ = views.shape
    image = torch.arange(n, device=views.device).repeat(v)
    rows = torch.arange(v * n, device=views.device).view(v, n)[:, anchors].flatten()
    return contrast(views.flatten(0, 1), rows, lambda chunk: image[chunk, None] == image, temperature, reference)


def content_loss(
    views: Float[Tensor, "v n d"], temperature: float = 0.1, reference: bool = False, anchors: slice = ALL_ANCHORS
) -> Float[Tensor, ""]:
    """Compute the adversarial content term: `instance_loss` on the descriptors of the content head.

    The content head follows the encoder's gradient reversal (see `reversal_strength`): the head learns to recognise an
    image, and the backbone learns to prevent this. The published code uses the plain image and a view with distorted
    colours, the temperature of the style loss, and the weight `lambda_c` (0 by default).

    Args:
        views: L2-normalised descriptors of the content head.
        temperature: Above 0.
        reference: Compute the reference version (see `contrastive_loss`).
        anchors: Images, each with all its views, whose terms are summed.

    Returns:
        A scalar; for an empty batch, a differentiable 0.
    """
    return instance_loss(views, temperature, reference, anchors)


def reversal_strength(progress: float) -> float:
    """Return the factor alpha of the gradient reversal, `2 / (1 + exp(-10 progress)) - 1`, which grows from 0 to 1.

    Args:
        progress: Fraction of the training steps that are done, in [0, 1].

    Source: Ganin et al., arXiv 1505.07818.
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


def _check_weights(supervised_weight: float, ssl_weight: float) -> None:
    if min(supervised_weight, ssl_weight) < 0 or max(supervised_weight, ssl_weight) == 0:
        raise ConfigError(
            "loss.supervised_weight and loss.ssl_weight must be 0 or more, and one of them above 0, "
            f"got {supervised_weight} and {ssl_weight}."
        )
