"""Write CLIP's visual tower in the formats in which it is published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


def transformers_state(tower: Mapping[str, Tensor], proj: Tensor) -> dict[str, Tensor]:
    """Return the tower with the names of transformers' CLIPModel (which misspells `pre_layrnorm`), and a text stub."""
    v, out = "vision_model.", {}
    out[f"{v}embeddings.class_embedding"] = tower["class_embedding"]
    out[f"{v}embeddings.position_embedding.weight"] = tower["positional_embedding"]
    out[f"{v}embeddings.position_ids"] = torch.arange(len(tower["positional_embedding"]))[None]
    out[f"{v}embeddings.patch_embedding.weight"] = tower["conv1.weight"]
    for source, target in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        for what in ("weight", "bias"):
            out[f"{v}{target}.{what}"] = tower[f"{source}.{what}"]
    pairs = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2"}
    pairs |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for layer in range(sum(key.endswith("ln_1.weight") for key in tower)):
        source, target = f"transformer.resblocks.{layer}", f"{v}encoder.layers.{layer}"
        for what in ("weight", "bias"):
            for a, b in pairs.items():
                out[f"{target}.{b}.{what}"] = tower[f"{source}.{a}.{what}"]
            for part, value in zip("qkv", tower[f"{source}.attn.in_proj_{what}"].chunk(3), strict=True):
                out[f"{target}.self_attn.{part}_proj.{what}"] = value
    out["visual_projection.weight"] = proj.T
    out["text_model.final_layer_norm.weight"] = torch.ones(8)
    return {key: value.clone().contiguous() for key, value in out.items()}


def torchscript(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a TorchScript archive in half precision, as OpenAI publishes it."""
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
