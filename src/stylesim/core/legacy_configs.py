"""Translate configurations of earlier versions, as saved in run folders and checkpoints, for this version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stylesim.core.wording import suggest

_TARGETS = {
    "curation.downloads.img2dataset": "curation.sources.img2dataset.img2dataset",
    "curation.duplicates.deduplicate": "curation.deduplicate.near_duplicates.deduplicate",
    "curation.files.folder": "curation.sources.local_files.folder",
    "curation.metadata.contrastyles": "curation.sources.url_tables.contrastyles",
    "curation.metadata.laion": "curation.sources.url_tables.laion",
    "curation.sharding.write_shards": "curation.shard.write_shards",
    "curation.tags.match_tags": "curation.tags.match_tags.match_tags",
    "data.domainnet.DomainNet": "data.datasets.domainnet.DomainNet",
    "data.sets.TaggedSets": "data.datasets.evaluation_sets.TaggedSets",
    "data.wikiart.WikiArt": "data.datasets.wikiart.WikiArt",
    "encoders.clip_baseline.clip_vit": "encoders.baselines.clip_baseline.clip_vit",
    "encoders.clip_baseline.random_vit": "encoders.controls.random_vit",
    "encoders.csd_baseline.csd_on": "encoders.csd_on_baselines.csd_on",
    "encoders.factories.csd_clip": "encoders.csd_factories.csd_clip",
    "encoders.factories.csd_lite0": "encoders.csd_factories.csd_lite0",
    "encoders.factories.csd_timm": "encoders.csd_factories.csd_timm",
    "encoders.gda.gda_clip": "encoders.baselines.gda.gda_clip",
    "encoders.gda.gda_dino": "encoders.baselines.gda.gda_dino",
    "encoders.gda.gda_vit": "encoders.baselines.gda.gda_vit",
    "encoders.self_supervised.dino_vitb16": "encoders.baselines.dino_and_moco.dino_vitb16",
    "encoders.self_supervised.dino_vitb8": "encoders.baselines.dino_and_moco.dino_vitb8",
    "encoders.self_supervised.moco_vitb": "encoders.baselines.dino_and_moco.moco_vitb",
    "encoders.sscd.sscd_rn50": "encoders.baselines.sscd.sscd_rn50",
    "encoders.vgg.vgg_gram": "encoders.baselines.vgg_gram.vgg_gram",
    "learning.callbacks.bar.StepBar": "learning.callbacks.step_bar.StepBar",
    "learning.callbacks.damage.DamageReport": "learning.callbacks.damage_report.DamageReport",
    "learning.callbacks.probe.RetrievalProbe": "learning.callbacks.retrieval_probe.RetrievalProbe",
    "learning.callbacks.stop.StopOnSignal": "learning.callbacks.stop_on_signal.StopOnSignal",
    "learning.losses.csd_loss": "learning.losses.CSDLoss",
    "learning.module.StyleModule": "learning.style_module.StyleModule",
    "report.sweep.TableOfSweep": "runtime.sweep_table.TableOfSweep",
    "retrieval.spec.RetrievalSpec": "evaluation.retrieval_spec.RetrievalSpec",
}
"""Old `_target_` -> new one, both without the leading `stylesim.`. Tests check that every new name exists."""

_MOVED_KEYS = {"learning.content_weight": "loss.content_weight"}
"""Old key -> new one."""


def suggest_key(path: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown key: its new name if it has been renamed, otherwise the most similar known name.

    Args:
        path: The unknown key with all its parents.
        known: The names that exist at its place.
    """
    if path in _MOVED_KEYS:
        return f" It is now {_MOVED_KEYS[path]}."
    return suggest(path.rpartition(".")[2], known)


def current_target(target: str) -> str:
    """Return the name in this version of a `_target_` from any version."""
    package, _, name = target.partition(".")
    return f"{package}.{_TARGETS.get(name, name)}"


def current_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a composed configuration of any version, as plain values, with the names of this version.

    The `_card_` of a model, which only describes it, is left out.
    """
    updated = _rename_targets(config)
    loss, learning = updated.get("loss"), updated.get("learning")
    # In earlier versions the loss was a function, and StyleModule had the weight of the content term.
    if loss and learning and "content_weight" in learning:
        content_weight = learning.pop("content_weight")
        loss.pop("_partial_", None)
        loss["content_weight"] = content_weight
    for views in (updated.get("views"), (updated.get("data") or {}).get("views")):
        if isinstance(views, dict) and "quarter_turns" in views:  # settings that earlier versions did not have
            # Profiles were ignored; few images have any.
            views.setdefault("colour", "srgb" if views["quarter_turns"] else "raw")
            views.setdefault("accept_damaged", False)
            views.setdefault("recolour", 0.0)
            views.setdefault("recolour_apart", False)
    return updated


def _rename_targets(node: Any) -> Any:
    if isinstance(node, Mapping):
        updated = {str(key): _rename_targets(value) for key, value in node.items() if key != "_card_"}
        if isinstance(updated.get("_target_"), str):
            updated["_target_"] = current_target(updated["_target_"])
        return updated
    return [_rename_targets(item) for item in node] if isinstance(node, list) else node
