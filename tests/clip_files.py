"""CLIP's visual tower in the formats that it is published in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


def transformers_state(tower: Mapping[str, Tensor], proj: Tensor) -> dict[str, Tensor]:
    """The names of transformers' CLIPModel, misspelt `pre_layrnorm` included, with a stub of the text tower."""
    v, out = "vision_model.", {}
    out[f"{v}embeddings.class_embedding"] = tower["class_embedding"]
    out[f"{v}embeddings.position_embedding.weight"] = tower["positional_embedding"]
    out[f"{v}embeddings.position_ids"] = torch.arange(len(tower["positional_embedding"]))[None]
    out[f"{v}embeddings.patch_embedding.weight"] = tower["conv1.weight"]
    for ours, theirs in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        for what in ("weight", "bias"):
            out[f"{v}{theirs}.{what}"] = tower[f"{ours}.{what}"]
    pairs = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2"}
    pairs |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for layer in range(sum(key.endswith("ln_1.weight") for key in tower)):
        ours, theirs = f"transformer.resblocks.{layer}", f"{v}encoder.layers.{layer}"
        for what in ("weight", "bias"):
            for a, b in pairs.items():
                out[f"{theirs}.{b}.{what}"] = tower[f"{ours}.{a}.{what}"]
            for part, value in zip("qkv", tower[f"{ours}.attn.in_proj_{what}"].chunk(3), strict=True):
                out[f"{theirs}.self_attn.{part}_proj.{what}"] = value
    out["visual_projection.weight"] = proj.T
    out["text_model.final_layer_norm.weight"] = torch.ones(8)
    return {key: value.clone().contiguous() for key, value in out.items()}


def torchscript(state: Mapping[str, Tensor], path: Path) -> None:
    """An archive as OpenAI publishes it: TorchScript, half precision."""
    root = nn.Module()
    for key, value in state.items():
        *parents, name = key.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, nn.Module())
            module = module.get_submodule(parent)
        module.register_parameter(name, nn.Parameter(value.half(), requires_grad=False))
    torch.jit.script(root).save(str(path))
