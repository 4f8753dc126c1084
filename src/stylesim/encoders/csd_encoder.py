"""The CSD model: a backbone, a style head, and an optional adversarial content head (arXiv 2404.01292, section 4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stylesim.core.errors import ConfigError
from stylesim.encoders.backbones.clip_tower import resize_positions
from stylesim.encoders.gradient_reversal import reverse_gradient
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance, StyleEncoder
from stylesim.encoders.weights.weight_formats import WeightFile, load_strictly


class CSDEncoder(StyleEncoder):
    """Compute `normalise(backbone(images) @ style_head)`, where the heads are matrices without a bias.

    The style head gives the descriptor. The content head is only an adversary during training; in the released weights
    its output is, in the words of the authors, left over from a failed experiment.

    The backbone stays in evaluation mode during training, as in the published code: batch norms keep their statistics,
    dropout and stochastic depth are off, and a descriptor does not depend on the other images of its batch.

    Args:
        backbone: Maps images `[b 3 h w]` to features `[b f]`.
        style_head: Initial values of the style head, copied.
        content_head: Initial values of the content head, copied; None for no content head.
        preprocessing: How raw images are prepared for the backbone.
        provenance: Where the weights come from.
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
        """Return the output of the backbone, before any head and not normalised."""
        if not len(images):  # all samples of a micro-batch were damaged, and transformers cannot reshape an empty batch
            return self.backbone(images.new_zeros(1, *images.shape[1:]))[:0]
        return self.backbone(images)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the L2-normalised style descriptors of normalised images."""
        return F.normalize(self.features(images) @ self.style_head, dim=-1)

    def heads(
        self, images: Float[Tensor, "b 3 h w"], alpha: float = 1.0
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"] | None]:
        """Return style descriptors, and content descriptors if there is a content head.

        The content head itself is trained as usual, but the gradient that it sends into the backbone is multiplied by
        `-alpha`, so that the backbone unlearns what the content head can detect.
        """
        features = self.features(images)
        style = F.normalize(features @ self.style_head, dim=-1)
        if self.content_head is None:
            return style, None
        return style, F.normalize(reverse_gradient(features, alpha) @ self.content_head, dim=-1)

    def train(self, mode: bool = True) -> CSDEncoder:
        """Set the training mode of everything except the backbone, which stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Return the named trainable parameters as "backbone" and "head", which have different learning rates."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {"backbone": [], "head": []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups["backbone" if name.startswith("backbone.") else "head"].append((name, parameter))
        return groups

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's activations in the backward pass: less memory, about a third more time.

        Raises:
            ConfigError: If the backbone does not support it.
        """
        backbone: Any = self.backbone
        if not hasattr(backbone, "set_grad_checkpointing"):
            raise ConfigError(f"{type(backbone).__name__} does not support gradient checkpointing: switch it off.")
        backbone.set_grad_checkpointing(enable)

    def load_weight_file(self, file: WeightFile) -> None:
        """Load the backbone and the heads strictly from a file; the provenance records whether the head was trained.

        A content head in the file is ignored if the encoder has none. Position embeddings of CLIP are interpolated.

        Raises:
            WeightsError: If keys or shapes differ.
        """
        state = dict(file.state)
        if self.content_head is None:
            state.pop("content_head", None)
        key, own = "backbone.positional_embedding", self.state_dict()
        if key in state and key in own:
            state[key] = resize_positions(state[key], len(own[key]))
        load_strictly(self, state, file.path)
        self.provenance = replace(self.provenance, trained_head=file.trained_head)


def semi_orthogonal(features: int, dim: int) -> Float[Tensor, "f d"]:
    """Return a random head for a backbone without a projection: orthonormal columns (rows if d > f).

    It preserves inner products as far as the dimension allows, as CLIP's `proj` roughly does.
    """
    return nn.init.orthogonal_(torch.empty(features, dim))
