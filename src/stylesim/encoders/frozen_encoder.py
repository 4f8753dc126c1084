"""The encoder of every baseline and control: the L2-normalised output of a network that is not trained."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance, StyleEncoder


class FrozenEncoder(StyleEncoder):
    """L2-normalise what `network` returns; none of its parameters requires a gradient.

    Args:
        network: Maps normalised images `[b 3 h w]` to features `[b d]`.
        preprocessing: How raw images are prepared for the network.
        provenance: Where the weights come from.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, provenance: Provenance) -> None:
        super().__init__(feature_count(network, preprocessing.size), preprocessing, provenance)
        self.network = network.requires_grad_(False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the L2-normalised output of the network for normalised images."""
        return F.normalize(self.network(images).float(), dim=-1)


def feature_count(network: nn.Module, image_size: int) -> int:
    """Return the number of features of a network, which is put into evaluation mode and run on one blank image."""
    with torch.no_grad():
        return network.eval()(torch.zeros(1, 3, image_size, image_size)).shape[1]
