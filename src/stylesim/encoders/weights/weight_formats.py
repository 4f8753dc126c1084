"""Read weight files of every known format, detected from their content, into one state dict with CSD's names.

The names are `backbone.*`, `style_head` and, if there is one, `content_head`. Only tensors, plain containers and the
`argparse.Namespace` of the published CSD checkpoint are unpickled.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylesim.core.errors import WeightsError

State = dict[str, Tensor]


@dataclass(frozen=True)
class WeightFile:
    """The content of a weight file.

    Args:
        path: The file.
        state: State dict with CSD's names.
        kind: `stylesim`, `lightning`, `csd` (the published training checkpoint), `clip`, `gda` (a pair of mappers), or
            `backbone` (a network without heads).
        metadata: What a file of kind `stylesim` or `lightning` states about the model.
    """

    path: Path
    state: State
    kind: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def trained_head(self) -> bool:
        """Whether the style head was trained. A CLIP file has only the projection that initialises the heads."""
        provenance = self.metadata.get("provenance") or {}
        return self.kind in ("csd", "lightning") or bool(provenance.get("trained_head"))


def read_weights(path: str | Path) -> WeightFile:
    """Read a weight file, whatever its extension.

    Known formats: the safetensors and the Lightning checkpoints of stylesim, the published CSD checkpoint (keys with
    the prefix `module.`, with optimisers), CLIP as OpenAI's TorchScript archive, as an open_clip checkpoint or as
    Hugging Face safetensors, the mappers of GDA, and the state dict of a backbone.

    Raises:
        WeightsError: If the file is missing, truncated, or in an unknown format.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weight file at {path}: check the path.")
    content, metadata = _read(path)
    if "pytorch-lightning_version" in content:
        state = {k.removeprefix("encoder."): v for k, v in content["state_dict"].items() if k.startswith("encoder.")}
        return WeightFile(path, state, "lightning", content.get("hyper_parameters") or {})
    if isinstance(content.get("real_mapper"), Mapping):
        mappers = {
            f"{name}.{k}": v for name in ("real_mapper", "synth_mapper") for k, v in content.get(name, {}).items()
        }
        return WeightFile(path, mappers, "gda")
    for wrapper in ("model_state_dict", "state_dict"):
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    state = {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}
    if not state and not metadata:
        raise WeightsError(f"{path} contains no tensors, only {', '.join(map(str, list(content)[:8])) or 'nothing'}.")
    return _detect_kind(path, state, metadata)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Load a state dict into a module.

    Raises:
        WeightsError: If a key is missing or unexpected, or a tensor has another shape. The message lists them.
    """
    own = module.state_dict()
    wrong_shapes = [
        f"{key} {list(state[key].shape)} for {list(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    differences = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "of another shape": wrong_shapes,
    }
    listed = [f"{what}: {_first(keys)}" for what, keys in differences.items() if keys]
    if listed:
        raise WeightsError(
            f"{path} does not fit this encoder, because its keys differ: {'; '.join(listed)}. Choose the model and the "
            f"options that the file was made with."
        )
    module.load_state_dict(dict(state))


def _first(keys: list[str], limit: int = 5) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")


def _read(path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    with path.open("rb") as file:
        head = file.read(9)
    try:
        if head[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
            return _read_safetensors(path)
        if _is_torchscript(path, head):
            return torch.jit.load(str(path), map_location="cpu").state_dict(), {}
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and safetensors raise different classes for a damaged file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{path} cannot be read as weights ({reason.rstrip('.')}): it is truncated, or in an unknown format. Known "
            f"formats: safetensors, torch checkpoints, TorchScript."
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} must contain a dictionary of weights, got a {type(content).__name__}.")
    return content, {}


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a mapping
    return state, json.loads(metadata["stylesim"]) if "stylesim" in metadata else {}


def _is_torchscript(path: Path, head: bytes) -> bool:
    if head[:4] != b"PK\x03\x04":
        return False
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _detect_kind(path: Path, state: State, metadata: dict[str, Any]) -> WeightFile:
    if "last_layer_style" in state:
        heads = {"last_layer_style": "style_head", "last_layer_content": "content_head"}
        return WeightFile(path, {heads.get(k, k): v for k, v in state.items()}, "csd")
    if "style_head" in state or metadata:
        return WeightFile(path, state, "stylesim", metadata)
    if "visual.proj" in state:
        return WeightFile(path, _from_tower(_under("visual.", state)), "clip")
    if "vision_model.embeddings.class_embedding" in state:
        return WeightFile(path, _from_tower(_from_transformers(state)), "clip")
    return WeightFile(path, state, "backbone")


def _under(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _from_tower(tower: State) -> State:
    """Rename CLIP's visual tower; both heads become copies of its `proj`."""
    proj = tower.pop("proj")
    backbone = {f"backbone.{key}": value for key, value in tower.items()}
    return {**backbone, "style_head": proj, "content_head": proj.clone()}


_TRANSFORMERS_NAMES = (  # transformers' CLIPVisionModel -> the names of OpenAI and open_clip
    (r"^embeddings\.class_embedding$", "class_embedding"),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^embeddings\.patch_embedding\.", "conv1."),
    (r"^pre_layrnorm\.", "ln_pre."),
    (r"^post_layernorm\.", "ln_post."),
    (r"^encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"transformer.resblocks.\1.attn.out_proj."),
    (r"^encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"transformer.resblocks.\1.ln_\2."),
    (r"^encoder\.layers\.(\d+)\.mlp\.fc1\.", r"transformer.resblocks.\1.mlp.c_fc."),
    (r"^encoder\.layers\.(\d+)\.mlp\.fc2\.", r"transformer.resblocks.\1.mlp.c_proj."),
)


def _from_transformers(state: State) -> State:
    vision = _under("vision_model.", state)
    vision.pop("embeddings.position_ids", None)
    tower = {"proj": state["visual_projection.weight"].T.contiguous()}
    for key, value in vision.items():
        if match := re.match(r"^encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)$", key):
            q_k_v = [vision[key.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            tower[f"transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(q_k_v)
        elif not re.search(r"\.[kv]_proj\.", key):
            new = next((re.sub(old, new, key) for old, new in _TRANSFORMERS_NAMES if re.search(old, key)), key)
            tower[new] = value
    return tower
