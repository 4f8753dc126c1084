"""CLIP's visual tower equals a second implementation in plain torch, written from the paper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from stylesim.core.errors import ConfigError, WeightsError
from stylesim.encoders.backbones.clip_tower import MEAN, STD, clip_preprocessing, clip_tower, resize_positions
from stylesim.encoders.backbones.vit_shapes import SHAPES, ViTShape, check_image_size, vit_shape
from stylesim.encoders.csd_factories import csd_clip

TINY = SHAPES["ViT-test"]
CUSTOM = {"width": 48, "layers": 3, "heads": 4, "patch": 7, "image": 28, "embed": 20}


def independent_tower(
    state: dict[str, torch.Tensor], images: torch.Tensor, heads: int, activation: str = "quickgelu"
) -> torch.Tensor:
    """`ln_post(class token)` of a pre-norm transformer, attention and activation written out."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    kernel = state["conv1.weight"]
    patches = F.conv2d(images, kernel, stride=kernel.shape[-1]).flatten(2).mT
    tokens = torch.cat([state["class_embedding"].expand(len(images), 1, -1), patches], dim=1)
    x = norm(tokens + state["positional_embedding"], "ln_pre")
    layer = 0
    while (block := f"transformer.resblocks.{layer}") + ".ln_1.weight" in state:
        y = norm(x, f"{block}.ln_1") @ state[f"{block}.attn.in_proj_weight"].T + state[f"{block}.attn.in_proj_bias"]
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in y.chunk(3, dim=-1))
        attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
        mixed = (attention @ v).transpose(1, 2).flatten(2)
        x = x + mixed @ state[f"{block}.attn.out_proj.weight"].T + state[f"{block}.attn.out_proj.bias"]
        h = norm(x, f"{block}.ln_2") @ state[f"{block}.mlp.c_fc.weight"].T + state[f"{block}.mlp.c_fc.bias"]
        h = h * (torch.sigmoid(1.702 * h) if activation == "quickgelu" else (1 + torch.erf(h / 2**0.5)) / 2)
        x = x + h @ state[f"{block}.mlp.c_proj.weight"].T + state[f"{block}.mlp.c_proj.bias"]
        layer += 1
    return norm(x[:, 0], "ln_post")


@pytest.mark.parametrize("activation", ["quickgelu", "gelu"])
@pytest.mark.parametrize("architecture", ["ViT-test", CUSTOM])
def test_features_equal_an_independent_implementation(architecture: str | dict[str, int], activation: Any):
    torch.manual_seed(0)
    shape = vit_shape(architecture)
    encoder = csd_clip(architecture=architecture, weights="random", image_size=shape.image, activation=activation)
    with torch.no_grad():
        for parameter in encoder.backbone.parameters():  # zero biases would hide one that is not loaded
            parameter.add_(0.05 * torch.randn_like(parameter))
    images = torch.randn(3, 3, shape.image, shape.image)
    features = independent_tower(encoder.backbone.state_dict(), images, shape.heads, activation)
    torch.testing.assert_close(encoder.features(images), features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        encoder(images), F.normalize(features @ encoder.style_head, dim=-1), atol=1e-5, rtol=1e-5
    )


def test_tower_has_exactly_the_published_keys():
    tower, proj = clip_tower(TINY, 32)
    block = (
        "attn.in_proj_weight",
        "attn.in_proj_bias",
        "attn.out_proj.weight",
        "attn.out_proj.bias",
        "ln_1.weight",
    )
    block += (
        "ln_1.bias",
        "ln_2.weight",
        "ln_2.bias",
        "mlp.c_fc.weight",
        "mlp.c_fc.bias",
        "mlp.c_proj.weight",
    )
    block += ("mlp.c_proj.bias",)
    expected = {"class_embedding", "positional_embedding", "conv1.weight"}
    expected |= {f"{ln}.{what}" for ln in ("ln_pre", "ln_post") for what in ("weight", "bias")}
    expected |= {f"transformer.resblocks.{i}.{key}" for i in range(TINY.layers) for key in block}
    assert set(tower.state_dict()) == expected
    assert proj.shape == (64, 32)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16", "ViT-L-14"])
def test_shapes_equal_open_clips_quickgelu_models(name: str):
    from open_clip import get_model_config

    config, shape = get_model_config(f"{name}-quickgelu"), SHAPES[name]
    assert config is not None
    vision = config["vision_cfg"]
    assert config["quick_gelu"]
    assert (shape.embed, shape.image, shape.layers) == (
        config["embed_dim"],
        vision["image_size"],
        vision["layers"],
    )
    assert (shape.width, shape.patch) == (vision["width"], vision["patch_size"])
    assert shape.heads == shape.width // vision.get("head_width", 64)


def test_position_embeddings_are_interpolated_as_in_open_clip():
    from types import SimpleNamespace

    from open_clip.model import resize_pos_embed

    positions = torch.randn(1 + 7 * 7, 16)
    state = {"visual.positional_embedding": positions.clone()}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=(11, 11))))
    torch.testing.assert_close(resize_positions(positions, 1 + 11 * 11), state["visual.positional_embedding"])
    assert resize_positions(positions, len(positions)) is positions
    with pytest.raises(WeightsError, match="must be a square grid"):
        resize_positions(positions, 40)


def test_image_sizes_must_be_multiples_of_the_patch_size():
    with pytest.raises(ConfigError, match=r"image_size=230 is not a multiple of 14, .* use 224 or 238"):
        check_image_size(SHAPES["ViT-L-14"], 230)
    with pytest.raises(ConfigError, match="use 8 or 16"):
        csd_clip(architecture="ViT-test", weights="random", image_size=4)


def test_architecture_is_given_by_name_or_by_all_sizes():
    assert vit_shape("ViT-test") == TINY
    assert vit_shape(CUSTOM) == ViTShape(48, 3, 4, 7, 28, 20)
    with pytest.raises(ConfigError, match=r"architecture must be one of .*ViT-B-16.*, got 'ViT-B/16'"):
        vit_shape("ViT-B/16")
    with pytest.raises(ConfigError, match="needs exactly embed, heads, image, layers, patch, width; got width"):
        vit_shape({"width": 64})


def test_preprocessing_is_that_of_clip():
    preprocessing = clip_preprocessing(224)
    assert (preprocessing.size, preprocessing.short_side, preprocessing.interpolation) == (
        224,
        224,
        "bicubic",
    )
    assert preprocessing.mean == MEAN == (0.48145466, 0.4578275, 0.40821073)
    assert preprocessing.std == STD == (0.26862954, 0.26130258, 0.27577711)
