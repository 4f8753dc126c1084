"""CLIP's image encoder as a baseline, and the same network with random weights as a control."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from stylesim.core.errors import StylesimError
from stylesim.encoders.backbones.clip_tower import clip_preprocessing, clip_tower, resize_positions
from stylesim.encoders.backbones.vit_shapes import ViTShape, check_image_size, vit_shape
from stylesim.encoders.base import Provenance
from stylesim.encoders.baselines.common import by_preset
from stylesim.encoders.controls import FrozenEncoder
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.weights.formats import load_strictly, read_weights
from stylesim.encoders.weights.locate import find_weights


@rebuildable
def clip_vit(
    *,
    architecture: str | Mapping[str, int] = "ViT-B-16",
    weights: str = "official",
    preset: Literal["authors", "reference"] = "authors",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """CLIP's image encoder (Radford et al. 2021) with its own preprocessing, at its own size or `image_size`.

    `authors`: the image embedding, behind `ln_post` and `proj`, 512-d for ViT-B and 768-d for ViT-L.
    `reference`: the class token of the last block before either, 768-d and 1024-d: what the published CSD code
    calls CLIP. `weights`: `official` (OpenAI's, MIT), `random`, or a CLIP file of any format known. Position
    embeddings are interpolated where `image_size` asks for it. Raises StylesimError for weights that are not to
    be had or do not fit, and for an image size that the patches do not tile.
    """
    shape = vit_shape(architecture)
    size = image_size or shape.image
    found = find_weights("clip_vit", weights, architecture, cache_dir)
    before_norm = by_preset(preset, authors=False, reference=True)
    tower: Any = _tower(shape, size, found.path)
    if before_norm:
        tower.ln_post, tower.proj = nn.Identity(), None
    provenance = Provenance(f"CLIP {shape.name}", weights, found.digest, found.licence)
    return FrozenEncoder(tower, clip_preprocessing(size), provenance)


@rebuildable
def random_vit(
    *, architecture: str | Mapping[str, int] = "ViT-B-16", image_size: int | None = None, seed: int = 0
) -> FrozenEncoder:
    """CLIP's network with random weights drawn from `seed`: what the architecture alone gives."""
    shape = vit_shape(architecture)
    size = image_size or shape.image
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = _tower(shape, size)
    return FrozenEncoder(tower, clip_preprocessing(size), Provenance(f"random {shape.name}, seed {seed}", "random"))


def _tower(shape: ViTShape, image_size: int, path: Path | None = None) -> nn.Module:
    """The whole tower, `[b 3 h w]` to `[b embed]`, with random weights or those of a CLIP file."""
    check_image_size(shape, image_size)
    tower, proj = clip_tower(shape, image_size)
    tower.proj = nn.Parameter(proj)
    if path is None:
        return tower
    file = read_weights(path)
    if file.kind not in ("clip", "backbone"):  # CSD has the same tensors, and its head is no `proj`
        raise StylesimError(f"{path} holds a checkpoint of kind {file.kind}, not CLIP: choose its own model.")
    state = {key.removeprefix("backbone."): value for key, value in file.state.items() if key != "content_head"}
    if file.kind == "clip":
        state["proj"] = state.pop("style_head")
        count = len(tower.get_parameter("positional_embedding"))
        state["positional_embedding"] = resize_positions(state["positional_embedding"], count)
    load_strictly(tower, state, path)
    return tower
