"""Gram matrices of VGG16 (Gatys et al. 2016): the oldest of the style descriptors."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from stylesim.encoders.backbones.stage_statistics import gram
from stylesim.encoders.baselines.common import by_preset, frozen_baseline, imagenet_preprocessing
from stylesim.encoders.controls import FrozenEncoder
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.weights.formats import State
from stylesim.encoders.weights.published import VGG16


class LastMapGram(nn.Module):
    """Images to the Gram matrix of VGG16's last map, behind the last max pooling: 512 x 7 x 7 at 224 px.

    Summed over the pixels and divided by the 512 channels, as the published code does.
    """

    def __init__(self) -> None:
        from torchvision.models.vgg import cfgs, make_layers

        super().__init__()
        self.features = make_layers(cfgs["D"])
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):  # torch's own start lets the picture die away over thirteen layers
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        last = self.features(images)
        channels, height, width = last.shape[1:]
        return gram(last) * (height * width / channels)


class FullLengthGram(FrozenEncoder):
    """The one encoder whose descriptors are not of unit length: Gram matrices as they are."""

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return self.network(images).float()


@rebuildable
def vgg_gram(
    *,
    weights: str = "official",
    preset: Literal["authors", "reference"] = "authors",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """The Gram matrix of VGG16's last map, 131,328-d: upper triangle, off the diagonal times sqrt 2.

    So all inner products, and with them neighbours and principal components, are those of the full 512 x 512
    matrix at half the memory. `weights`: `official` (torchvision's IMAGENET1K_V1), `random`, or a file of
    torchvision's. Raises StylesimError for weights that are not to be had or do not fit.

    `reference` keeps the matrix at its full length, because the published code forgets to normalise the database
    before it reduces it to 1024 components: it means something with `readout=pca readout.fit=query
    readout.renormalise=false` alone.
    """
    preprocessing = imagenet_preprocessing(image_size or 224, "bilinear")
    encoder = frozen_baseline(VGG16, LastMapGram(), preprocessing, weights, cache_dir, _without_classifier)
    if not by_preset(preset, authors=False, reference=True):
        return encoder
    provenance = replace(encoder.provenance, name=f"{encoder.provenance.name}, full length")
    return FullLengthGram(encoder.network, preprocessing, provenance)


def _without_classifier(state: State, network: nn.Module) -> State:
    return {key: value for key, value in state.items() if not key.startswith("classifier.")}
