"""timm's plain vision transformer, the network of DINO, MoCo v3 and the ImageNet classifier behind GDA."""

from __future__ import annotations

from torch import nn

from stylesim.encoders.backbones.clip_tower import resize_positions
from stylesim.encoders.backbones.vit_shapes import ViTShape, check_image_size
from stylesim.encoders.weights.weight_formats import State


def vit(shape: ViTShape, image_size: int | None) -> nn.Module:
    """Build timm's vision transformer without a head and with random weights: `[b 3 h w]` to the class token `[b f]`.

    Args:
        shape: Width, depth, heads and patch size.
        image_size: Image size in pixels; None means `shape.image`.

    Raises:
        ConfigError: If the image size is not a multiple of the patch size.
    """
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


def headless_state(state: State, network: nn.Module) -> State:
    """Return a state dict without its classifier, position embeddings interpolated to the patches of `network`."""
    state = {key: value for key, value in state.items() if not key.startswith("head.")}
    return fit_positions(state, network)


def fit_positions(state: State, network: nn.Module) -> State:
    """Return the state dict with its position embeddings interpolated to the number of patches of `network`."""
    if "pos_embed" not in state:
        return state
    count = network.get_parameter("pos_embed").shape[1]
    return {**state, "pos_embed": resize_positions(state["pos_embed"][0], count)[None]}
