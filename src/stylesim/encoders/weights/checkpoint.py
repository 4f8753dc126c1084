"""Save an encoder as one self-contained safetensors file, load it, and export the published CSD format."""

from __future__ import annotations

import argparse
import inspect
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylesim.core.errors import WeightsError
from stylesim.core.files import atomic_path, sha256_of_file
from stylesim.core.legacy_configs import current_target
from stylesim.encoders.backbones.clip_tower import resize_positions
from stylesim.encoders.backbones.vit_shapes import vit_shape
from stylesim.encoders.csd_encoder import CSDEncoder
from stylesim.encoders.style_encoder import Provenance, StyleEncoder
from stylesim.encoders.weights.weight_formats import load_strictly, read_weights

logger = logging.getLogger(__name__)


def save_weights(
    encoder: StyleEncoder,
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights, model configuration, preprocessing and provenance as safetensors for `load_checkpoint`.

    Args:
        encoder: An encoder built by a factory of `stylesim.encoders`.
        path: The file to write.
        metadata: Text to store with the weights. A `step` above 0 marks the head as trained.
        state: State dict to store instead of the encoder's own, for example that of an EMA.

    Raises:
        WeightsError: If the encoder was not built by a factory, so that it could not be rebuilt from the file.
    """
    from safetensors.torch import save_file

    metadata = dict(metadata or {})
    if encoder.config is None:
        raise WeightsError(
            f"{encoder.provenance.name} was not built by a factory, so it could not be rebuilt from a file: build it "
            f"with a factory of stylesim.encoders."
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
    """Load an encoder that `save_weights` wrote, such as the `checkpoints/best.safetensors` of a training run.

    The file states how to build the model, so nothing else is needed. No code in it is run.

    Args:
        path: The .safetensors file.

    Returns:
        The encoder in evaluation mode, on the CPU. Its provenance names the file and its digest.

    Raises:
        WeightsError: If the file is not such a checkpoint, names a model outside `stylesim.encoders`, or was written
            with different preprocessing.
    """
    file = read_weights(path)
    if "model" not in file.metadata:
        raise WeightsError(
            f"{path} contains weights ({file.kind}) but does not state their model: set model.weights (in Python, "
            f"weights) to its path, or use the .safetensors file that training writes beside its .ckpt."
        )
    model, provenance = file.metadata["model"], file.metadata.get("provenance")
    fields = set(inspect.signature(Provenance).parameters)
    if not (isinstance(model, dict) and isinstance(provenance, dict) and provenance.keys() <= fields):
        raise WeightsError(
            f"What {path} states about its model cannot be read by this version of stylesim: it was written by a later "
            f"version ({file.metadata.get('stylesim', 'unknown')}), or is damaged."
        )
    encoder = _build(dict(model), path)
    load_strictly(encoder, file.state, path)
    preprocessing = file.metadata.get("preprocessing")
    if isinstance(preprocessing, dict):
        preprocessing = {"colour": "srgb", **preprocessing}  # which earlier versions did not write
        encoder.use_colour(preprocessing["colour"])
    if preprocessing != json.loads(json.dumps(asdict(encoder.preprocessing))):
        raise WeightsError(
            f"{path} was written with a different preprocessing than its model has in this version of stylesim: "
            f"{preprocessing}, now {asdict(encoder.preprocessing)}."
        )
    encoder.provenance = Provenance(**{**provenance, "weights": str(path), "digest": sha256_of_file(Path(path))})
    return encoder.eval()


def export_csd(encoder: StyleEncoder, path: str | Path) -> None:
    """Write a CSD encoder on CLIP in the format of the published checkpoint, for the published code.

    A missing content head is written as a copy of the style head, because the published loader expects one. It also
    builds CLIP for its native image size only, so the position embeddings of an encoder for another size are
    interpolated to that size. The published code then embeds images at that size, which gives other descriptors than
    this encoder at its own; a warning says so.

    Args:
        encoder: A CSD encoder with a CLIP backbone.
        path: The file to write.

    Raises:
        WeightsError: If the published code has no such backbone or activation, or the file cannot be written.
    """
    if not isinstance(encoder, CSDEncoder) or "backbone.class_embedding" not in encoder.state_dict():
        raise WeightsError(
            f"The published CSD format supports only CLIP backbones; {encoder.provenance.name} has another one."
        )
    if encoder.config and encoder.config.get("activation") == "gelu":
        raise WeightsError(
            f"The published code runs CLIP with QuickGELU, but {encoder.provenance.name} was trained with GELU, so it "
            f"would give other descriptors there. Load the .safetensors of the run with stylesim instead."
        )
    heads = {"style_head": "last_layer_style", "content_head": "last_layer_content"}
    state = {heads.get(key, key): value.detach().cpu() for key, value in encoder.state_dict().items()}
    state.setdefault("last_layer_content", state["last_layer_style"].clone())
    shape = vit_shape((encoder.config or {}).get("architecture", "ViT-B-16"))
    if shape.name not in ("ViT-B-16", "ViT-L-14"):
        logger.warning("The published code builds only ViT-B-16 and ViT-L-14, so it cannot load this %s.", shape.name)
    if (size := encoder.preprocessing.size) != shape.image:
        positions = resize_positions(state["backbone.positional_embedding"], 1 + (shape.image // shape.patch) ** 2)
        state["backbone.positional_embedding"] = positions
        logger.warning(
            "The published code takes images of %d px only, so the position embeddings for %d px were interpolated: "
            "%s gives other descriptors there than here.",
            *(shape.image, size, path),
        )
    content = {
        "model_state_dict": {f"module.{key}": value for key, value in state.items()},
        "opt_bb": {},
        "opt_proj": {},
        "iter": 0,
        "args": argparse.Namespace(**(encoder.config or {})),
    }
    try:
        with atomic_path(path) as partial:
            torch.save(content, partial)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError if the disk is full
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise WeightsError(
            f"{path} cannot be written ({reason}): choose another folder, or make room there."
        ) from error


def _build(config: dict[str, Any], path: str | Path) -> StyleEncoder:
    module, _, name = current_target(str(config.pop("_target_", ""))).rpartition(".")
    if not module.startswith("stylesim.encoders."):
        raise WeightsError(f"{path} names {module}.{name} as its model, which is not part of stylesim.encoders.")
    factory = getattr(import_module(module), name, None) if find_spec(module) else None
    if factory is None or not hasattr(factory, "builds_encoder"):
        raise WeightsError(f"{path} was written for the model {name}, which this version of stylesim does not have.")
    if "weights" in config:
        config["weights"] = "random"  # they will be overwritten, so neither a file nor the network is needed
    return factory(**config)


def _version() -> str:
    try:
        return version("stylesim")
    except PackageNotFoundError:
        return "unknown"
