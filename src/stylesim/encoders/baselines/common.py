"""What the published baselines share: ImageNet's preprocessing, presets, and weights that are read and frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

from torch import nn

from stylesim.core.errors import StylesimError
from stylesim.core.files import sha256_of_file
from stylesim.encoders.base import Preprocessing, Provenance
from stylesim.encoders.controls import FrozenEncoder
from stylesim.encoders.weights.formats import State, load_strictly, read_weights
from stylesim.encoders.weights.locate import locate, require_weights
from stylesim.encoders.weights.published import WeightSource

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
WORDS = ("official", "random")

Choice = TypeVar("Choice")


def imagenet_preprocessing(size: int, interpolation: Literal["bilinear", "bicubic"]) -> Preprocessing:
    """Short side to 8/7 of `size` px (256 for 224), centre crop, ImageNet's mean and deviation."""
    return Preprocessing(size, size * 8 // 7, interpolation, MEAN, STD)


def by_preset(preset: str, *, authors: Choice, reference: Choice) -> Choice:
    """The one that `preset` names; StylesimError for any other word.

    `authors` is what the authors of the weights do, `reference` what the published CSD code does with them.
    """
    choices = {"authors": authors, "reference": reference}
    if preset not in choices:
        raise StylesimError(f"preset={preset} is none of {', '.join(choices)}.")
    return choices[preset]


def frozen_baseline(
    source: WeightSource,
    network: nn.Module,
    preprocessing: Preprocessing,
    weights: str,
    cache_dir: str | None,
    from_published: Callable[[State, nn.Module], State],
) -> FrozenEncoder:
    """`network` with the weights of `source` (official), of a file in its format, or as it is (random); frozen.

    `from_published` brings a file's tensors under the network's names. Raises StylesimError for weights that
    are not to be had, and for a file whose keys differ then.
    """
    require_weights(weights, WORDS)
    provenance = Provenance(source.name, weights)
    if weights != "random":
        path = locate(source, cache_dir) if weights == "official" else Path(weights)
        load_strictly(network, from_published(read_weights(path).state, network), path)
        licence = source.licence if weights == "official" else None
        provenance = replace(provenance, digest=sha256_of_file(path), licence=licence)
    return FrozenEncoder(network, preprocessing, provenance)
