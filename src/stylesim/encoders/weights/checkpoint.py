"""An encoder as one file: safetensors that rebuild it alone, or the published CSD format for others' code."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylesim.core.errors import StylesimError
from stylesim.core.files import sha256_of_file
from stylesim.encoders.base import StyleEncoder
from stylesim.encoders.csd import CSDEncoder
from stylesim.encoders.weights.formats import load_strictly, read_weights


def save_weights(
    encoder: StyleEncoder,
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights, model config, preprocessing and provenance as safetensors for `load_checkpoint`.

    The weights are those of `state`, or else the encoder's own. `metadata` is noted as it is. With a `step` above 0 in
    it, the head counts as trained from then on. Raises StylesimError for an encoder that no factory built, since
    nothing would tell how to rebuild it.
    """
    from safetensors.torch import save_file

    metadata = dict(metadata or {})
    if encoder.config is None:
        raise StylesimError(
            f"{encoder.provenance.name} was built by hand, so no config could rebuild it from a file: build "
            f"it with a factory of stylesim.encoders."
        )
    provenance = encoder.provenance
    if int(metadata.get("step", 0)) > 0:
        provenance = replace(provenance, trained_head=True)
    about = {
        "model": encoder.config,
        "preprocessing": asdict(encoder.preprocessing),
        "provenance": asdict(provenance),
        "stylesim": _version(),
        "metadata": metadata,
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in (state or encoder.state_dict()).items()}
    save_file(tensors, path, metadata={"stylesim": json.dumps(about, sort_keys=True)})


def load_checkpoint(path: str | Path) -> StyleEncoder:
    """The encoder that `save_weights` wrote, in evaluation mode; Lightning is not needed.

    Its provenance names the file and the file's digest. Raises StylesimError when the file is no such
    checkpoint, or names a model outside `stylesim.encoders`.
    """
    file = read_weights(path)
    if "model" not in file.metadata:
        raise StylesimError(
            f"{path} holds weights ({file.kind}) but not the model they belong to: pass it as weights=<path> "
            f"to a model, or take the .safetensors that training leaves beside its .ckpt."
        )
    encoder = _build(dict(file.metadata["model"]), path)
    load_strictly(encoder, file.state, path)
    if file.metadata["preprocessing"] != json.loads(json.dumps(asdict(encoder.preprocessing))):
        raise StylesimError(
            f"{path} was written with another preprocessing than its model has in this version of stylesim: "
            f"{file.metadata['preprocessing']}, now {asdict(encoder.preprocessing)}."
        )
    saved = {**file.metadata["provenance"], "weights": str(path), "digest": sha256_of_file(Path(path))}
    encoder.provenance = type(encoder.provenance)(**saved)
    return encoder.eval()


def export_csd(encoder: StyleEncoder, path: str | Path) -> None:
    """Write a CLIP-backed CSD encoder as the published checkpoint, `module.` and all.

    A missing content head is written as a copy of the style head, because the published loader expects one.
    Raises StylesimError for any other encoder: the format knows no other backbone.
    """
    if not isinstance(encoder, CSDEncoder) or "backbone.class_embedding" not in encoder.state_dict():
        raise StylesimError(
            f"The published CSD format holds CLIP backbones only; {encoder.provenance.name} has another."
        )
    heads = {"style_head": "last_layer_style", "content_head": "last_layer_content"}
    state = {heads.get(key, key): value.detach().cpu() for key, value in encoder.state_dict().items()}
    state.setdefault("last_layer_content", state["last_layer_style"].clone())
    content = {
        "model_state_dict": {f"module.{key}": value for key, value in state.items()},
        "opt_bb": {},
        "opt_proj": {},
        "iter": 0,
        "args": argparse.Namespace(**(encoder.config or {})),
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def _build(config: dict[str, Any], path: str | Path) -> StyleEncoder:
    module, _, name = str(config.pop("_target_", "")).rpartition(".")
    if not module.startswith("stylesim.encoders."):
        raise StylesimError(f"{path} names {module}.{name} as its model: refused, it is none of stylesim.encoders.")
    factory = getattr(import_module(module), name, None) if find_spec(module) else None
    if factory is None or not hasattr(factory, "builds_encoder"):
        raise StylesimError(f"{path} was written for the model {name}, which this version of stylesim has not.")
    if "weights" in config:
        config["weights"] = "random"  # they are about to be overwritten: no file and no network are needed
    return factory(**config)


def _version() -> str:
    try:
        return version("stylesim")
    except PackageNotFoundError:
        return "unknown"
