"""DINO and MoCo v3: vision transformers that learnt without labels, read at the class token behind the last norm."""

from __future__ import annotations

from typing import Literal

from torch import nn

from stylesim.encoders.backbones.clip_tower import resize_positions
from stylesim.encoders.backbones.vit_shapes import ViTShape, check_image_size
from stylesim.encoders.baselines.common import by_preset, frozen_baseline, imagenet_preprocessing
from stylesim.encoders.controls import FrozenEncoder
from stylesim.encoders.rebuild import rebuildable
from stylesim.encoders.weights.formats import State
from stylesim.encoders.weights.published import DINO, MOCO

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
    """DINO ViT-B/16 (Caron et al. 2021), 768-d, at 224 px or `image_size`.

    `weights`: `official` (Apache-2.0), `random`, or a file of the published format. The presets differ in the
    resize: bicubic (authors, in their k-NN evaluation) or bilinear (reference). Position embeddings are
    interpolated where `image_size` asks for it. Raises StylesimError for weights that are not to be had or do
    not fit, and for an image size that the patches do not tile.
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
    """DINO ViT-B/8: as `dino_vitb16` with patches of 8 px, four times the tokens, about five times the work."""
    return _dino(VIT_B_8, weights, preset, image_size, cache_dir)


@rebuildable
def moco_vitb(
    *,
    weights: str = "official",
    preset: Literal["authors", "reference"] = "authors",
    image_size: int | None = None,
    cache_dir: str | None = None,
) -> FrozenEncoder:
    """MoCo v3 ViT-B/16 of 300 epochs (Chen et al. 2021), 768-d, at 224 px or `image_size`.

    `weights`: `official` (CC BY-NC 4.0: no commercial use), `random`, or a training checkpoint of that format,
    of which the base encoder is read without its projection head. Its positions were fixed sines, and stand
    in the file like any others. Both presets are the same here, the authors' own linear evaluation. Raises as
    `dino_vitb16` does.
    """
    network = vit(VIT_B_16, image_size)
    preprocessing = imagenet_preprocessing(
        image_size or VIT_B_16.image, by_preset(preset, authors="bilinear", reference="bilinear")
    )
    return frozen_baseline(MOCO, network, preprocessing, weights, cache_dir, _base_encoder)


def vit(shape: ViTShape, image_size: int | None) -> nn.Module:
    """timm's vision transformer without a head, random weights: `[b 3 h w]` to the class token `[b f]`."""
    from timm.models.vision_transformer import VisionTransformer

    size = image_size or shape.image
    check_image_size(shape, size)
    return VisionTransformer(
        img_size=size,
        patch_size=shape.patch,
        embed_dim=shape.width,
        depth=shape.layers,
        num_heads=shape.heads,
        num_classes=0,
    )


def fit_positions(state: State, network: nn.Module) -> State:
    """The same state, its position embeddings interpolated to the network's number of patches."""
    if "pos_embed" not in state:
        return state
    count = network.get_parameter("pos_embed").shape[1]
    return {**state, "pos_embed": resize_positions(state["pos_embed"][0], count)[None]}


def _dino(shape: ViTShape, weights: str, preset: str, image_size: int | None, cache_dir: str | None) -> FrozenEncoder:
    preprocessing = imagenet_preprocessing(
        image_size or shape.image, by_preset(preset, authors="bicubic", reference="bilinear")
    )
    return frozen_baseline(DINO[shape.name], vit(shape, image_size), preprocessing, weights, cache_dir, fit_positions)


def _base_encoder(state: State, network: nn.Module) -> State:
    """Of MoCo's training checkpoint what its authors evaluate: no momentum encoder, predictor or head."""
    prefix = "base_encoder."
    base = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return fit_positions({key: value for key, value in base.items() if not key.startswith("head.")}, network)
