"""CLIP's image encoder as a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from stylesim.core.errors import WeightsError
from stylesim.encoders.backbones.clip_tower import clip_preprocessing, clip_tower, resize_positions
from stylesim.encoders.backbones.vit_shapes import check_image_size, vit_shape
from stylesim.encoders.baselines.frozen_baseline import by_preset, colour_of_preset
from stylesim.encoders.frozen_encoder import FrozenEncoder
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.style_encoder import Provenance
from stylesim.encoders.weights.clip_activation import Activation, clip_activation
from stylesim.encoders.weights.published import KNOWN_WORDS
from stylesim.encoders.weights.weight_formats import WeightFile, load_strictly, read_weights
from stylesim.encoders.weights.weight_keywords import find_weights


@rebuildable
def clip_vit(
    *,
    architecture: str | Mapping[str, int] = "ViT-B-16",
    weights: str = "official",
    preset: Literal["authors", "reference"] = "authors",
    image_size: int | None = None,
    activation: Activation | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """Build CLIP's image encoder (Radford et al. 2021) with CLIP's preprocessing.

    Args:
        architecture: `ViT-B-32`, `ViT-B-16`, `ViT-L-14`, or the sizes of a `ViTShape`.
        weights: `official` (OpenAI's, MIT), `random`, or a CLIP file in any known format.
        preset: `authors`: the image embedding, after `ln_post` and `proj` (512-d for ViT-B, 768-d for ViT-L).
            `reference`: the class token of the last block, before both (768-d and 1024-d), which the published CSD
            code calls CLIP.
        image_size: Image size in pixels; None means the native size. Position embeddings are interpolated if needed.
        activation: Activation of the transformer blocks: `quickgelu` (OpenAI's CLIP and the released CSD), `gelu` (most
            weights of open_clip and LAION), or None for the one that the weights state (`quickgelu`, with a warning, if
            they state none).
        cache_dir: Folder of downloaded weights.

    Raises:
        WeightsError: If the weights cannot be obtained or do not fit.
        ConfigError: If the image size is not a multiple of the patch size, or an option is unknown.
    """
    shape = vit_shape(architecture)
    size = image_size or shape.image
    found = find_weights(KNOWN_WORDS["clip_vit"], weights, architecture, cache_dir)
    before_norm = by_preset(preset, authors=False, reference=True)
    check_image_size(shape, size)
    file = read_weights(found.path) if found.path else None
    activation = clip_activation(activation, found, file, shape.name)
    tower: Any
    tower, proj = clip_tower(shape, size, activation)
    tower.proj = nn.Parameter(proj)
    if file:
        _load_clip(tower, file)
    if before_norm:
        tower.ln_post, tower.proj = nn.Identity(), None
    name = f"CLIP {shape.name}{', GELU' if activation == 'gelu' else ''}"
    preprocessing = replace(clip_preprocessing(size), colour=colour_of_preset(preset))
    encoder = FrozenEncoder(tower, preprocessing, Provenance(name, weights, found.digest, found.licence))
    encoder.config = {"activation": activation}
    return encoder


def _load_clip(tower: nn.Module, file: WeightFile) -> None:
    if file.kind not in ("clip", "backbone"):  # CSD has the same tensors, but its head is not CLIP's `proj`
        raise WeightsError(f"{file.path} is a {file.kind} checkpoint, not a CLIP file: use it with its own model.")
    state = {key.removeprefix("backbone."): value for key, value in file.state.items() if key != "content_head"}
    if file.kind == "clip":
        state["proj"] = state.pop("style_head")
        count = len(tower.get_parameter("positional_embedding"))
        state["positional_embedding"] = resize_positions(state["positional_embedding"], count)
    load_strictly(tower, state, file.path)
