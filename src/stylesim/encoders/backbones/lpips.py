"""LPIPS with VGG16 (Zhang et al. 2018): torchmetrics contains its linear weights, torchvision publishes its VGG16."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.weights.locate import locate
from stylesim.encoders.weights.published import VGG16
from stylesim.encoders.weights.weight_formats import load_strictly, read_weights

CONVOLUTIONS = 29
"""Layers of VGG16's `features` that LPIPS reads; the last max pooling is not among them."""


class Lpips(nn.Module):
    """The perceptual distance of two images: 0 for the same image, less is more alike.

    Args:
        weights: A file of torchvision's VGG16; None is the published one.
        image_size: Images are resized to this short side and cropped, in pixels.

    Raises:
        WeightsError: If the weights cannot be obtained or do not fit.
    """

    name = "LPIPS 0.1, VGG16"

    def __init__(self, weights: str | None = None, image_size: int = 256) -> None:
        super().__init__()
        from torchmetrics.functional.image.lpips import _LPIPS  # the public class downloads VGG16 by itself

        path = locate(VGG16, key="lpips_weights") if weights is None else weights
        features = {
            key.removeprefix("features."): value
            for key, value in read_weights(path).state.items()
            if key.startswith("features.") and int(key.split(".")[1]) <= CONVOLUTIONS
        }
        self.network = _LPIPS(net="vgg", pnet_rand=True)
        tower = nn.Sequential()
        for part in self.network.net.children():
            for name, layer in part.named_children():
                tower.add_module(name, layer)
        load_strictly(tower, features, path)
        self.preprocessing = Preprocessing(image_size)  # its values are in [-1, 1], as LPIPS expects

    @torch.no_grad()
    def forward(self, a: UInt8[Tensor, "b 3 s s"], b: UInt8[Tensor, "b 3 s s"]) -> Float[Tensor, " b"]:
        """Return the distance of each pair of images that `preprocessing` has resized."""
        normalise = self.preprocessing.normalise
        return self.network(normalise(a), normalise(b)).flatten()
