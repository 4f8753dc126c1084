"""What the published baselines share: presets, ImageNet's preprocessing, and the loading of frozen weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

from torch import nn

from stylesim.core.errors import ConfigError
from stylesim.core.images import Colour
from stylesim.encoders.frozen_encoder import FrozenEncoder
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance
from stylesim.encoders.weights.published import WeightSource
from stylesim.encoders.weights.weight_formats import State, load_strictly, read_weights
from stylesim.encoders.weights.weight_keywords import find_weights

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Choice = TypeVar("Choice")


def imagenet_preprocessing(size: int, interpolation: Literal["bilinear", "bicubic"]) -> Preprocessing:
    """Return a resize of the short side to 8/7 of `size` (256 for 224), a centre crop, and ImageNet's mean and std."""
    return Preprocessing(size, size * 8 // 7, interpolation, MEAN, STD)


def colour_of_preset(preset: str) -> Colour:
    """Return what becomes of embedded colour profiles: the published CSD code ignores them."""
    return by_preset(preset, authors="srgb", reference="raw")


def by_preset(preset: str, *, authors: Choice, reference: Choice) -> Choice:
    """Return the value for a preset.

    Args:
        preset: `authors` or `reference`.
        authors: What the authors of the weights do.
        reference: What the published CSD code does with these weights.

    Raises:
        ConfigError: If the preset is neither.
    """
    choices = {"authors": authors, "reference": reference}
    if preset not in choices:
        raise ConfigError(f"preset must be one of {', '.join(choices)}, got {preset!r}.")
    return choices[preset]


def frozen_baseline(
    source: WeightSource,
    network: nn.Module,
    preprocessing: Preprocessing,
    weights: str,
    cache_dir: str | None,
    from_published: Callable[[State, nn.Module], State],
) -> FrozenEncoder:
    """Load published weights into a network and freeze it.

    Args:
        source: The published file.
        network: Maps images `[b 3 h w]` to features `[b d]`, with random weights.
        preprocessing: How raw images are prepared.
        weights: `official` (the file of `source`), `random` (the network as it is), or a file in the same format.
        cache_dir: Folder of downloaded weights.
        from_published: Renames the tensors of the file to those of the network.

    Raises:
        WeightsError: If the weights cannot be obtained, or the keys or shapes of the file differ.
    """
    found = find_weights({"official": source, "random": None}, weights, cache_dir=cache_dir)
    if found.path:
        load_strictly(network, from_published(read_weights(found.path).state, network), found.path)
    return FrozenEncoder(network, preprocessing, Provenance(source.name, weights, found.digest, found.licence))
