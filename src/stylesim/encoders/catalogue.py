"""List the encoders that can be loaded by name, without importing torch and without network access."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import DictConfig, OmegaConf

from stylesim.core.conf import conf_dir
from stylesim.core.errors import WeightsError
from stylesim.encoders.load import model_config
from stylesim.encoders.weights.locate import present
from stylesim.encoders.weights.published import CSD_OFFICIAL, WeightSource
from stylesim.encoders.weights.weight_keywords import needed_sources

Status = Literal["here", "not downloaded", "none needed", "to be trained"]


@dataclass(frozen=True)
class ModelInfo:
    """One encoder of conf/model, with its default options.

    Args:
        name: Name for `load_encoder(name)` and `model=name`.
        summary: What the encoder is, in one line.
        parameters: Number of parameters in millions; None if conf/model does not state it.
        dim: Length of a descriptor; None if conf/model does not state it.
        licence: Licence of the weights, or of those that training starts from; None without published weights.
        trained_on: The images that the weights were trained on; None if there are none, or if they are not known.
        weights: "here", "not downloaded", "none needed" (the encoder has no published weights), or "to be trained" (no
            trained style head is published, so it needs a checkpoint).
        location: Path of the weights if they are here, their origin if they are not downloaded, else None.
    """

    name: str
    summary: str
    parameters: float | None
    dim: int | None
    licence: str | None
    trained_on: str | None
    weights: Status
    location: str | None


def list_models() -> list[ModelInfo]:
    """List the encoders that `load_encoder` and the option `model` accept by name, in alphabetical order.

    A model is added by a file in conf/model. Its key `_card_` states the summary, the number of parameters and the
    length of a descriptor; the weights are looked up in `stylesim.encoders.weights.published`.
    """
    return [_describe(file.stem) for file in sorted((conf_dir() / "model").glob("*.yaml"))]


def _describe(name: str) -> ModelInfo:
    model = model_config(name)
    card = model.get("_card_") or {}
    sources, trained = _sources(model)
    status, location = _status(sources, trained)
    return ModelInfo(
        name=name,
        summary=card.get("summary", ""),
        parameters=card.get("parameters"),
        dim=card.get("dim"),
        licence=sources[0].licence if sources else None,
        trained_on=sources[0].trained_on if sources and trained else None,
        weights=status,
        location=location,
    )


def _sources(model: DictConfig) -> tuple[list[WeightSource], bool]:
    """Return the published files that a model needs, and whether its descriptors are usable without training."""
    try:
        sources = needed_sources(_resolved(model, csd_weights="official"))
    except WeightsError:  # CSD is not published for this architecture
        sources = needed_sources(_resolved(model, csd_weights="clip"))
    is_csd = model._target_.rpartition(".")[2].startswith("csd_")
    return sources, not is_csd or any(source in CSD_OFFICIAL.values() for source in sources)


def _resolved(model: DictConfig, csd_weights: str) -> DictConfig:
    return OmegaConf.create({"model": model, "csd_weights": csd_weights}).model


def _status(sources: list[WeightSource], trained: bool) -> tuple[Status, str | None]:
    if not trained:
        return "to be trained", None
    if not sources:
        return "none needed", None
    paths = {source: present(source) for source in sources}
    if missing := [source.origin for source, path in paths.items() if path is None]:
        return "not downloaded", ", ".join(missing)
    return "here", ", ".join(map(str, paths.values()))
