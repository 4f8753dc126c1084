"""CLIP's visual tower without its projection `proj`: the output is `ln_post` of the class token, as CSD uses it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stylesim.core.errors import WeightsError
from stylesim.encoders.backbones.vit_shapes import ViTShape
from stylesim.encoders.preprocessing import Preprocessing

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def clip_tower(
    shape: ViTShape, image_size: int, activation: str = "quickgelu"
) -> tuple[nn.Module, Float[Tensor, "f d"]]:
    """Build open_clip's tower with random weights.

    Args:
        shape: Width, depth, heads and patch size.
        image_size: Image size in pixels.
        activation: `quickgelu`, with which OpenAI trained, or `gelu` (see `stylesim.encoders.weights.clip_activation`).

    Returns:
        The tower without its projection, and the projection.
    """
    from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer

    tower = VisionTransformer(
        image_size=image_size,
        patch_size=shape.patch,
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads,
        mlp_ratio=4.0,
        output_dim=shape.embed,
        act_layer=nn.GELU if activation == "gelu" else QuickGELU,
        norm_layer=LayerNorm,
    )
    proj = tower.proj
    tower.proj = None
    assert isinstance(proj, Tensor)
    return tower, proj.detach()


def clip_preprocessing(image_size: int) -> Preprocessing:
    """Return CLIP's preprocessing: bicubic resize of the short side to `image_size`, then a centre crop."""
    return Preprocessing(image_size, interpolation="bicubic", mean=MEAN, std=STD)


def resize_positions(positions: Float[Tensor, "n f"], count: int) -> Float[Tensor, "m f"]:
    """Interpolate (bicubic, antialiased) the embeddings of a class token and a square grid of patches.

    Args:
        positions: Position embeddings, the class token first.
        count: Number of embeddings to return.

    Raises:
        WeightsError: If either grid is not square.
    """
    if len(positions) == count:
        return positions
    old, new = round((len(positions) - 1) ** 0.5), round((count - 1) ** 0.5)
    if old * old + 1 != len(positions) or new * new + 1 != count:
        raise WeightsError(
            f"{len(positions)} position embeddings cannot be interpolated to {count}: without the class token, both "
            f"must be a square grid."
        )
    grid = positions[1:].float().T.reshape(1, -1, old, old)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([positions[:1].float(), grid[0].flatten(1).T])
