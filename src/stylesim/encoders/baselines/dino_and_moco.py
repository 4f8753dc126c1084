"""DINO and MoCo v3: self-supervised vision transformers, read at the class token after the last norm."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import nn

from stylesim.encoders.backbones.vision_transformer import fit_positions, headless_state, vit
from stylesim.encoders.backbones.vit_shapes import ViTShape
from stylesim.encoders.baselines.frozen_baseline import (
    by_preset,
    colour_of_preset,
    frozen_baseline,
    imagenet_preprocessing,
)
from stylesim.encoders.frozen_encoder import FrozenEncoder
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.weights.published import DINO, MOCO
from stylesim.encoders.weights.weight_formats import State

Interpolation = Literal["bilinear", "bicubic"]

VIT_B_16 = ViTShape(width=768, layers=12, heads=12, patch=16, image=224, embed=768, name="ViT-B-16")
VIT_B_8 = ViTShape(width=768, layers=12, heads=12, patch=8, image=224, embed=768, name="ViT-B-8")


@rebuildable
def dino_vitb16(
    *,
    weights: str = "official",
    preset: Literal["authors", "reference"] = "authors",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """Build DINO ViT-B/16 (Caron et al. 2021), 768-d.

    Args:
        weights: `official` (Apache-2.0), `random`, or a file in the published format.
        preset: `authors` resizes with bicubic interpolation, as DINO's k-NN evaluation does; `reference` with bilinear,
            and ignores colour profiles.
        image_size: Image size in pixels; None means 224. Position embeddings are interpolated if needed.
        cache_dir: Folder of downloaded weights.

    Raises:
        WeightsError: If the weights cannot be obtained or do not fit.
        ConfigError: If the image size is not a multiple of the patch size, or the preset is unknown.
    """
    return _dino(VIT_B_16, weights, preset, image_size, cache_dir)


@rebuildable
def dino_vitb8(
    *,
    weights: str = "official",
    preset: Literal["authors", "reference"] = "authors",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """Build DINO ViT-B/8: as `dino_vitb16` with patches of 8 px, four times the tokens, about five times the work.

    Args:
        weights: See `dino_vitb16`.
        preset: See `dino_vitb16`.
        image_size: See `dino_vitb16`.
        cache_dir: See `dino_vitb16`.
    """
    return _dino(VIT_B_8, weights, preset, image_size, cache_dir)


@rebuildable
def moco_vitb(
    *,
    weights: str = "official",
    preset: Literal["authors", "reference"] = "authors",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """Build MoCo v3 ViT-B/16 of 300 epochs (Chen et al. 2021), 768-d.

    Args:
        weights: `official` (CC BY-NC 4.0: no commercial use), `random`, or a training checkpoint of MoCo v3, of which
            the base encoder is read without its projection head. Its fixed sine positions are stored in the file.
        preset: `authors` is the preprocessing of the authors' linear evaluation; `reference` also ignores colour
            profiles.
        image_size: Image size in pixels; None means 224. Position embeddings are interpolated if needed.
        cache_dir: Folder of downloaded weights.

    Raises:
        WeightsError: If the weights cannot be obtained or do not fit.
        ConfigError: If the image size is not a multiple of the patch size, or the preset is unknown.
    """
    interpolation: Interpolation = by_preset(preset, authors="bilinear", reference="bilinear")
    preprocessing = imagenet_preprocessing(image_size or VIT_B_16.image, interpolation)
    preprocessing = replace(preprocessing, colour=colour_of_preset(preset))
    return frozen_baseline(MOCO, vit(VIT_B_16, image_size), preprocessing, weights, cache_dir, _base_encoder)


def _dino(shape: ViTShape, weights: str, preset: str, image_size: int | None, cache_dir: str | None) -> FrozenEncoder:
    interpolation: Interpolation = by_preset(preset, authors="bicubic", reference="bilinear")
    preprocessing = imagenet_preprocessing(image_size or shape.image, interpolation)
    preprocessing = replace(preprocessing, colour=colour_of_preset(preset))
    return frozen_baseline(DINO[shape.name], vit(shape, image_size), preprocessing, weights, cache_dir, fit_positions)


def _base_encoder(state: State, network: nn.Module) -> State:
    """Return what MoCo's authors evaluate of their checkpoint: no momentum encoder, predictor or head."""
    prefix = "base_encoder."
    base = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return headless_state(base, network)
