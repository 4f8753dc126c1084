"""CSD: a backbone, a style head, and if wanted an adversarial content head (arXiv 2404.01292, section 4)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stylesim.core.errors import StylesimError
from stylesim.encoders.base import Preprocessing, Provenance, StyleEncoder
from stylesim.encoders.gradient_reversal import reverse_gradient


class CSDEncoder(StyleEncoder):
    """`normalise(backbone(images) @ style_head)`; the heads are bare matrices `[f d]` without a bias.

    The backbone stays in evaluation mode while it is trained, as in the published code: batch norms keep
    their statistics, dropout and stochastic depth are off, and a batch's descriptors do not depend on its
    other images.
    """

    def __init__(
        self,
        backbone: nn.Module,
        style_head: Float[Tensor, "f d"],
        content_head: Float[Tensor, "f d"] | None,
        preprocessing: Preprocessing,
        provenance: Provenance,
    ) -> None:
        super().__init__(style_head.shape[1], preprocessing, provenance)
        self.backbone = backbone
        self.style_head = nn.Parameter(style_head.clone())
        self.content_head = None if content_head is None else nn.Parameter(content_head.clone())
        self.train(False)

    def features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """What the backbone gives, before any head and not normalised."""
        if not len(images):  # every slot of a micro-batch was damaged; transformers cannot reshape nothing
            return self.backbone(images.new_zeros(1, *images.shape[1:]))[:0]
        return self.backbone(images)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return F.normalize(self.features(images) @ self.style_head, dim=-1)

    def heads(
        self, images: Float[Tensor, "b 3 h w"], alpha: float = 1.0
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"] | None]:
        """Style descriptors, and content descriptors when there is a content head.

        The content head learns as usual, but what it sends back into the backbone is multiplied by `-alpha`:
        the backbone unlearns what the head finds.
        """
        features = self.features(images)
        style = F.normalize(features @ self.style_head, dim=-1)
        if self.content_head is None:
            return style, None
        return style, F.normalize(reverse_gradient(features, alpha) @ self.content_head, dim=-1)

    def train(self, mode: bool = True) -> CSDEncoder:
        super().train(mode)
        self.backbone.eval()
        return self

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Trainable parameters by full name: "backbone" and "head", which learn at different rates."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {"backbone": [], "head": []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups["backbone" if name.startswith("backbone.") else "head"].append((name, parameter))
        return groups

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's activations in the backward pass: less memory, about a third more time."""
        backbone: Any = self.backbone
        if not hasattr(backbone, "set_grad_checkpointing"):
            raise StylesimError(f"{type(backbone).__name__} offers no gradient checkpointing: leave it off.")
        backbone.set_grad_checkpointing(enable)


def semi_orthogonal(features: int, dim: int) -> Float[Tensor, "f d"]:
    """A random head for a backbone that brings no projection: orthonormal columns (rows, when d > f).

    It keeps inner products as far as the dimension lets it, as CLIP's `proj` roughly does.
    """
    return nn.init.orthogonal_(torch.empty(features, dim))


def width_of(backbone: nn.Module, image_size: int) -> int:
    """How many features a backbone gives, found by trying."""
    with torch.no_grad():
        return backbone.eval()(torch.zeros(1, 3, image_size, image_size)).shape[1]
