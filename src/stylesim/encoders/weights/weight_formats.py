"""Read weight files of every known format, detected from their content, into one state dict with CSD's names.

The names are `backbone.*`, `style_head` and, if there is one, `content_head`. Only tensors, plain containers and the
`argparse.Namespace` of the published CSD checkpoint are unpickled.
"""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from stylesim.core.errors import WeightsError
from stylesim.encoders.weights.not_weights import why_not_weights
from stylesim.encoders.weights.state_dicts import State, find_state_dict, strip_prefixes

_WEIGHT_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class WeightFile:
    """The content of a weight file.

    Args:
        path: The file.
        state: State dict with CSD's names.
        kind: `stylesim`, `lightning`, `csd` (the published training checkpoint), `clip`, `gda` (a pair of mappers), or
            `backbone` (a network without heads).
        metadata: What a file of kind `stylesim` or `lightning` states about the model.
        activation: The activation of a CLIP tower as far as the file itself tells it: `quickgelu` or `gelu`.
    """

    path: Path
    state: State
    kind: str
    metadata: dict[str, Any] = field(default_factory=dict)
    activation: str | None = None

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
    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsError(f"There is no weight file at {path}: check the path.")
    content, metadata, activation = _read(path)
    if metadata:
        return WeightFile(path, dict(content), "stylesim", metadata, _activation_in(metadata.get("model")))
    if "pytorch-lightning_version" in content and (encoder := _encoder_of_lightning(content, path)):
        activation = _activation_in(content.get("encoder_config"))
        return WeightFile(path, encoder, "lightning", content.get("hyper_parameters") or {}, activation)
    if isinstance(content.get("real_mapper"), Mapping):
        mappers = {
            f"{name}.{k}": v for name in ("real_mapper", "synth_mapper") for k, v in content.get(name, {}).items()
        }
        return WeightFile(path, mappers, "gda")
    return _detect_kind(path, find_state_dict(content, path), activation)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Load a state dict into a module.

    Raises:
        WeightsError: If a key is missing or unexpected, a tensor has another shape, or a tensor of weights holds
            integers, NaN or infinity. The message lists them.
    """
    own = module.state_dict()
    require_numbers(state, own, path)
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


def require_numbers(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str | Path) -> None:
    """Check that the weights in a state dict are finite floating point numbers of at least 16 bits.

    torch would copy integers and 8 bit floats into the parameters of a model as they are, although they are only
    meaningful with the scales that a quantised file keeps elsewhere.

    Args:
        state: The state dict of a file.
        own: The state dict of the model. What the model itself keeps as integers, such as counters, is not checked.
        path: The file, for messages.

    Raises:
        WeightsError: If they are not.
    """
    weights = {key: value for key, value in state.items() if key in own and own[key].is_floating_point()}
    if wrong := [f"{key} ({_dtype(value)})" for key, value in weights.items() if value.dtype not in _WEIGHT_DTYPES]:
        raise WeightsError(
            f"{path} contains weights that are not floating point numbers of 16 bits or more, so it is quantised or "
            f"damaged: {_first(wrong)}. Use the file with float32, bfloat16 or float16 weights."
        )
    if bad := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise WeightsError(
            f"{path} contains NaN or infinity, so it is damaged, or its training diverged: {_first(bad)}. Use another "
            f"file, or an earlier checkpoint."
        )


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _first(keys: list[str], limit: int = 5) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")


def _read(path: Path) -> tuple[Mapping[str, Any], dict[str, Any], str | None]:
    """Return the content of a file, what stylesim's metadata in it state, and the activation that its code states."""
    try:
        if reason := why_not_weights(path):
            raise ValueError(reason)
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
            return *_read_safetensors(path), None
        if code := _torchscript_code(path, head):
            activation = "gelu" if "torch.gelu" in code else "quickgelu"
            return torch.jit.load(str(path), map_location="cpu").state_dict(), {}, activation
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and safetensors raise different classes for a damaged file
        raise WeightsError(f"{path} cannot be read as weights ({_reason(error)}).") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} must contain a dictionary of weights, got a {type(content).__name__}.")
    return content, {}, None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, UnpicklingError) and (match := re.search(r"GLOBAL (\S+)|global (\S+)", str(error))):
        name = (match[1] or match[2]).rstrip(".`'\"")
        return (
            f"it contains Python objects ({name}), which could run code when they are loaded: save the state_dict() of "
            f"the model alone"
        )
    if type(error) is ValueError:
        return lines[0]
    return (
        f"{lines[0].rstrip('.')}: it is truncated, or in an unknown format. Known formats: safetensors, torch "
        f"checkpoints, TorchScript"
    )


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        stated = (file.metadata() or {}).get("stylesim")
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a mapping
    metadata = json.loads(stated) if stated else {}
    if not isinstance(metadata, dict):
        raise ValueError("its metadata named stylesim must be a JSON object")
    return state, metadata


def _encoder_of_lightning(content: Mapping[str, Any], path: Path) -> State:
    """Return the encoder in a training checkpoint of stylesim; empty if the checkpoint is another program's."""
    state, _ = strip_prefixes({str(key): value for key, value in content["state_dict"].items()}, path)
    return _under("encoder.", state)


def _torchscript_code(path: Path, head: bytes) -> str:
    """Return the code of a TorchScript archive; empty for another file."""
    if head[:4] != b"PK\x03\x04":
        return ""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if "/code/" in name and name.endswith(".py")]
        return "\n".join(archive.read(name).decode(errors="replace") for name in names)


def _activation_in(model: Any) -> str:
    """Return the activation in the configuration of a model. Earlier versions had only one, and did not state it."""
    return (isinstance(model, dict) and model.get("activation")) or "quickgelu"


def _detect_kind(path: Path, state: State, activation: str | None) -> WeightFile:
    if "last_layer_style" in state:
        heads = {"last_layer_style": "style_head", "last_layer_content": "content_head"}
        state = {heads.get(key, key): value for key, value in state.items()}
        return WeightFile(path, state, "csd", activation="quickgelu")  # the published code has no other
    if "style_head" in state:
        return WeightFile(path, state, "stylesim")
    if "visual.proj" in state:
        return WeightFile(path, _from_tower(_under("visual.", state)), "clip", activation=activation)
    if "vision_model.embeddings.class_embedding" in state:
        return WeightFile(path, _from_tower(_from_transformers(state, path)), "clip", activation=activation)
    return WeightFile(path, state, "backbone", activation=activation)


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


def _from_transformers(state: State, path: Path) -> State:
    if "visual_projection.weight" not in state:
        raise WeightsError(
            f"{path} has CLIP's vision tower in the format of transformers, but not its visual_projection.weight: use "
            f"the file of CLIPModel or CLIPVisionModelWithProjection."
        )
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
