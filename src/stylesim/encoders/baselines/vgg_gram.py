"""Gram matrices of VGG16 (Gatys et al. 2016), the oldest neural style descriptor."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from stylesim.encoders.backbones.stage_statistics import gram
from stylesim.encoders.baselines.frozen_baseline import (
    by_preset,
    colour_of_preset,
    frozen_baseline,
    imagenet_preprocessing,
)
from stylesim.encoders.frozen_encoder import FrozenEncoder
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.weights.published import VGG16
from stylesim.encoders.weights.weight_formats import State


class LastMapGram(nn.Module):
    """Map images to the Gram matrix of VGG16's last feature map, after the last max pooling (512 x 7 x 7 at 224 px).

    The matrix is summed over the pixels and divided by the 512 channels, as the published CSD code does.
    """

    def __init__(self) -> None:
        from torchvision.models.vgg import cfgs, make_layers

        super().__init__()
        self.features = make_layers(cfgs["D"])
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):  # with torch's default, activations vanish over thirteen layers
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """Return the Gram matrices of normalised images: the upper triangle, f = 131,328."""
        last = self.features(images)
        channels, height, width = last.shape[1:]
        return gram(last) * (height * width / channels)


class UnnormalisedGram(FrozenEncoder):
    """Gram matrices as they are: the only encoder whose descriptors do not have unit length."""

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the Gram matrices of normalised images, not normalised to unit length."""
        return self.network(images).float()


@rebuildable
def vgg_gram(
    *,
    weights: str = "official",
    preset: Literal["authors", "reference"] = "authors",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """Build the Gram matrix of VGG16's last feature map, 131,328-d.

    The descriptor is the upper triangle with off-diagonal entries multiplied by sqrt 2. Inner products, and with them
    neighbours and principal components, are those of the full 512 x 512 matrix at half the memory.

    Args:
        weights: `official` (torchvision's IMAGENET1K_V1), `random`, or a file of torchvision's VGG16.
        preset: `authors` normalises the descriptors. `reference` does not, because the published code does not
            normalise the gallery before the reduction to 1024 components; it is meaningful only with `readout=pca
            readout.fit=query readout.renormalise=false`.
        image_size: Image size in pixels; None means 224.
        cache_dir: Folder of downloaded weights.

    Raises:
        WeightsError: If the weights cannot be obtained or do not fit.
        ConfigError: If the preset is unknown.
    """
    preprocessing = replace(imagenet_preprocessing(image_size or 224, "bilinear"), colour=colour_of_preset(preset))
    encoder = frozen_baseline(VGG16, LastMapGram(), preprocessing, weights, cache_dir, _without_classifier)
    if not by_preset(preset, authors=False, reference=True):
        return encoder
    provenance = replace(encoder.provenance, name=f"{encoder.provenance.name}, full length")
    return UnnormalisedGram(encoder.network, preprocessing, provenance)


def _without_classifier(state: State, network: nn.Module) -> State:
    return {key: value for key, value in state.items() if not key.startswith("classifier.")}
