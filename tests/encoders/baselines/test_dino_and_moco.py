"""DINO and MoCo v3, loaded from files in the published formats, equal a vision transformer in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stylesim.core.errors import ConfigError, WeightsError
from stylesim.encoders.backbones.vision_transformer import vit
from stylesim.encoders.backbones.vit_shapes import ViTShape
from stylesim.encoders.baselines import dino_and_moco
from stylesim.encoders.baselines.dino_and_moco import dino_vitb8, dino_vitb16, moco_vitb
from stylesim.encoders.frozen_encoder import FrozenEncoder
from stylesim.encoders.weights.checkpoint import load_checkpoint, save_weights

Factory = Callable[..., FrozenEncoder]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the width and depth of the factories' networks, so that they run in milliseconds."""
    for name in ("VIT_B_16", "VIT_B_8"):
        shape = replace(getattr(dino_and_moco, name), width=48, layers=2, heads=4)
        monkeypatch.setattr(dino_and_moco, name, shape)


def published_shapes(shape: ViTShape) -> dict[str, tuple[int, ...]]:
    """The shapes of DINO's `vision_transformer.py` (and of timm 0.4.9, which MoCo v3 uses) by key."""
    width = shape.width
    sizes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + (224 // shape.patch) ** 2, width),
        "patch_embed.proj.weight": (width, 3, shape.patch, shape.patch),
        "patch_embed.proj.bias": (width,),
    }
    for block in (f"blocks.{layer}" for layer in range(shape.layers)):
        sizes |= {f"{block}.{norm}.{what}": (width,) for norm in ("norm1", "norm2") for what in ("weight", "bias")}
        for name, (d_out, d_in) in {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            sizes |= {f"{block}.{name}.weight": (d_out, d_in), f"{block}.{name}.bias": (d_out,)}
    sizes |= {"norm.weight": (width,), "norm.bias": (width,)}
    return sizes


def published_state(shape: ViTShape) -> dict[str, Tensor]:
    """Random tensors of the published shapes."""
    draw = torch.Generator().manual_seed(0)
    sizes = published_shapes(shape)
    return {key: torch.randn(size, generator=draw) / size[-1] ** 0.5 for key, size in sizes.items()}


def mlp(prefix: str, widths: list[int]) -> dict[str, Tensor]:
    """MoCo v3's projection heads: Linear without bias, batch norm, ReLU, the last batch norm without scale."""
    state: dict[str, Tensor] = {}
    for layer, (d_in, d_out) in enumerate(pairwise(widths)):
        state[f"{prefix}.{3 * layer}.weight"] = torch.randn(d_out, d_in)
        norm = f"{prefix}.{3 * layer + 1}"
        if layer < len(widths) - 2:
            state |= {f"{norm}.weight": torch.ones(d_out), f"{norm}.bias": torch.zeros(d_out)}
        state |= {f"{norm}.running_mean": torch.zeros(d_out), f"{norm}.running_var": torch.ones(d_out)}
        state[f"{norm}.num_batches_tracked"] = torch.tensor(9)
    return state


def moco_checkpoint(base: dict[str, Tensor], momentum: dict[str, Tensor]) -> dict[str, object]:
    """The checkpoint of `main_moco.py`: both encoders with their heads, predictor, optimiser and scaler."""
    width = base["norm.bias"].numel()
    state = {f"base_encoder.{k}": v for k, v in (base | mlp("head", [width, 64, 64, 16])).items()}
    state |= {f"momentum_encoder.{k}": v for k, v in (momentum | mlp("head", [width, 64, 64, 16])).items()}
    state |= mlp("predictor", [16, 64, 16])
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
    return {
        "epoch": 300,
        "arch": "vit_base",
        "state_dict": {f"module.{key}": value for key, value in state.items()},
        "optimizer": optimiser.state_dict(),
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7},
    }


def independent_vit(state: dict[str, Tensor], images: Tensor, heads: int) -> Tensor:
    """The class token after the last norm of a pre-norm transformer with exact GELU and explicit attention."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    kernel = state["patch_embed.proj.weight"]
    patches = F.conv2d(images, kernel, state["patch_embed.proj.bias"], stride=kernel.shape[-1]).flatten(2).mT
    x = torch.cat([state["cls_token"].expand(len(images), -1, -1), patches], dim=1) + state["pos_embed"]
    layer = 0
    while (block := f"blocks.{layer}") + ".norm1.weight" in state:
        q, k, v = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, dim=-1)
        )
        attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
        x = x + linear((attention @ v).transpose(1, 2).flatten(2), f"{block}.attn.proj")
        h = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        x = x + linear(h * (1 + torch.erf(h / 2**0.5)) / 2, f"{block}.mlp.fc2")
        layer += 1
    return F.normalize(norm(x, "norm")[:, 0], dim=-1)


@pytest.mark.parametrize(("factory", "name"), [(dino_vitb16, "VIT_B_16"), (dino_vitb8, "VIT_B_8")])
def test_dino_file_gives_the_descriptors_of_an_independent_implementation(
    factory: Factory, name: str, small: None, tmp_path: Path
):
    shape: ViTShape = getattr(dino_and_moco, name)
    state, path = published_state(shape), tmp_path / "dino_pretrain.pth"
    torch.save(state, path)
    encoder = factory(weights=str(path))
    images = torch.randn(2, 3, 224, 224)
    descriptors = encoder(images)
    torch.testing.assert_close(descriptors, independent_vit(state, images, shape.heads), atol=1e-4, rtol=0)
    assert descriptors.shape == (2, encoder.dim) == (2, 48)
    assert encoder.provenance.digest
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_dino_at_full_width_and_another_image_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from timm.layers import resample_abs_pos_embed

    monkeypatch.setattr(dino_and_moco, "VIT_B_16", replace(dino_and_moco.VIT_B_16, layers=3))
    state, path = published_state(dino_and_moco.VIT_B_16), tmp_path / "dino_vitbase16_pretrain.pth"
    torch.save(state, path)
    encoder = dino_vitb16(weights=str(path), image_size=48)
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [3, 3])
    images = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(encoder(images), independent_vit(state, images, heads=12), atol=1e-4, rtol=0)
    assert encoder.dim == 768


def test_moco_training_checkpoint_gives_its_base_encoder(small: None, tmp_path: Path):
    shape, path = dino_and_moco.VIT_B_16, tmp_path / "vit-b-300ep.pth.tar"
    base = published_state(shape)
    momentum = {key: value + 1 for key, value in base.items()}
    torch.save(moco_checkpoint(base, momentum), path)
    images = torch.randn(2, 3, 224, 224)
    descriptors = moco_vitb(weights=str(path))(images)
    torch.testing.assert_close(descriptors, independent_vit(base, images, shape.heads), atol=1e-4, rtol=0)


def test_file_of_another_model_is_refused_with_the_keys_that_differ(small: None, tmp_path: Path):
    dino, moco, with_head = (tmp_path / name for name in ("dino.pth", "moco.pth.tar", "cut.pth"))
    state = published_state(dino_and_moco.VIT_B_16)
    torch.save(state, dino)
    torch.save(moco_checkpoint(state, state), moco)
    torch.save(
        {key: value for key, value in state.items() if key != "norm.bias"} | {"head.bias": torch.ones(9)}, with_head
    )
    with pytest.raises(WeightsError, match=r"dino\.pth does not fit .* missing: cls_token, pos_embed"):
        moco_vitb(weights=str(dino))
    with pytest.raises(WeightsError, match=r"moco\.pth\.tar does not fit .* unexpected: base_encoder\.cls_token"):
        dino_vitb16(weights=str(moco))
    with pytest.raises(WeightsError, match=r"missing: norm\.bias; unexpected: head\.bias"):
        dino_vitb16(weights=str(with_head))
    with pytest.raises(WeightsError, match=r"patch_embed\.proj\.weight \[48, 3, 16, 16\] for \[48, 3, 8, 8\]"):
        dino_vitb8(weights=str(dino))


def test_networks_have_the_published_keys_and_shapes():
    for name in ("VIT_B_16", "VIT_B_8"):
        shape: ViTShape = getattr(dino_and_moco, name)
        with torch.device("meta"):
            network = vit(shape, None)
        assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == published_shapes(shape)
    sizes = published_shapes(dino_and_moco.VIT_B_16).values()
    assert len(sizes) == 150
    assert sum(map(prod, sizes)) == 85_798_656


@pytest.mark.parametrize("factory", [dino_vitb16, dino_vitb8, moco_vitb])
def test_presets_differ_in_the_interpolation_and_in_colour_profiles(factory: Factory, small: None):
    authors, reference = (factory(weights="random", preset=name).preprocessing for name in ("authors", "reference"))
    assert (reference.size, reference.resize, reference.interpolation) == (224, 256, "bilinear")
    interpolation = "bilinear" if factory is moco_vitb else "bicubic"
    assert reference.colour == "raw"
    assert authors == replace(reference, interpolation=interpolation, colour="srgb")
    with pytest.raises(ConfigError, match="preset must be one of authors, reference, got 'mine'"):
        factory(weights="random", preset="mine")
    with pytest.raises(ConfigError, match="image_size=100 is not a multiple"):
        factory(weights="random", image_size=100)


def test_checkpoint_gives_the_same_descriptors(small: None, tmp_path: Path):
    encoder = dino_vitb16(weights="random", preset="reference", image_size=32)
    save_weights(encoder, tmp_path / "dino.safetensors")
    loaded = load_checkpoint(tmp_path / "dino.safetensors")
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(images), encoder(images))
    assert loaded.digest() == encoder.digest()
