"""Turn captioned images from the web into deduplicated shards with tags.

    stylesim curate source=folder source.path=/my/images out=/my/curation
    stylesim curate source=contrastyles source.path=train.parquet source.fetch=true out=/my/curation
    stylesim curate stages=[tags] out=/my/curation tags.matching=reference redo=true
    stylesim curate stages=[deduplicate,shard] out=/my/curation +deduplicate.evaluation.wikiart=/data/wikiart

Each stage writes parquet files and summary.json into its own folder of `out`. A stage that is finished is not run
again, and after an interruption the same command continues.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, PositiveInt

from stylesim.core.errors import ConfigError, StylesimError, WeightsError
from stylesim.runtime.existence_checks import check_encoders
from stylesim.runtime.launch import run
from stylesim.runtime.settings import CommandSettings
from stylesim.runtime.stage_run import chosen_stages, run_stages

FOLDERS = {
    "sources": "1-sources",
    "tags": "2-tags",
    "filter": "3-filter",
    "deduplicate": "4-deduplicate",
    "shard": "5-shards",
}
"""The stages in their order, and the folder of `out` that each writes."""


class Settings(CommandSettings):
    """The keys of `stylesim curate`; the stages' own are in conf/curate.yaml."""

    out: str = Field(description="The work folder, with a folder for each stage.")
    stages: list[str] = Field(list(FOLDERS), description="The stages to run, each on the result of the one before.")
    redo: bool = Field(False, description="Delete what a stage has made with other settings.")
    processes: PositiveInt | None = Field(None, description="Number of processes; null is one per core.")


def main(cfg: DictConfig) -> dict[str, float]:
    """Run `cfg.stages`, each on the result of the stage before it in `cfg.out`. A finished stage is not run again.

    Args:
        cfg: The configuration of `conf/curate.yaml`.

    Returns:
        The counts of the stages, as `<stage>/<count>`.

    Raises:
        StylesimError: If a stage or a setting is unknown or out of range, if an input is missing, or if a folder was
            made with other settings.
    """
    from stylesim.core.stages.stage import SUMMARY
    from stylesim.curation.stage import Stage

    chosen = chosen_stages(cfg.stages, FOLDERS)
    nodes = _stage_nodes(cfg, chosen)
    out = Path(str(cfg.out)).expanduser()
    for name, settings in nodes.items():
        _check_settings(name, settings)
    if "sources" in nodes and not Path(str(nodes["sources"]["path"])).expanduser().exists():
        raise ConfigError(f"source.path must exist, got {nodes['sources']['path']}.")
    if "deduplicate" in nodes:
        _check_encoder(cfg.deduplicate, finished=(out / FOLDERS["deduplicate"] / SUMMARY).exists())

    def run_stage(name: str, folder: Path, before: Path | None) -> dict[str, Any]:
        # The number of simultaneous downloads does not change the result.
        settings = {key: value for key, value in nodes[name].items() if key != "threads"}
        stage = Stage(folder, settings, before, cfg.processes, redo=cfg.redo)
        return instantiate(cfg["source" if name == "sources" else name])(stage)

    return run_stages(chosen, FOLDERS, out, run_stage)


def _stage_nodes(cfg: DictConfig, chosen: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the settings of each chosen stage, in order."""
    if "sources" in chosen and "source" not in cfg:
        raise ConfigError(
            "source must be given: add source=laion, contrastyles, img2dataset or folder, and source.path=... to the"
            " command, or leave out the stage that reads it: stages=[tags,filter,...]"
        )
    nodes = {name: cfg["source" if name == "sources" else name] for name in chosen}
    containers = {name: OmegaConf.to_container(node, resolve=True) for name, node in nodes.items()}
    return {name: {str(k): v for k, v in settings.items()} for name, settings in containers.items()}  # type: ignore[union-attr]


def _check_settings(name: str, settings: dict[str, Any]) -> None:
    """Check the settings of a stage before the earlier stages run for hours. The first one checks its own."""
    if name != "sources":
        module = import_module(settings["_target_"].rpartition(".")[0])
        module.check_settings(**{key: value for key, value in settings.items() if not key.startswith("_")})


def _check_encoder(node: DictConfig, finished: bool) -> None:
    """Load the encoder that finds near-duplicates, to check its weights before the earlier stages run."""
    from stylesim.curation.deduplicate.embed_images import require_trained

    encoders = OmegaConf.create({"checkpoint": node.checkpoint, "model": node.encoder})
    if node.checkpoint is not None:
        check_encoders(encoders)
        return
    if finished:
        return
    try:
        check_encoders(encoders)
        require_trained(instantiate(node.encoder)())
    except StylesimError as error:
        message = re.sub(r"\bmodel\.(?=weights|backbone)", "deduplicate.encoder.", str(error))
        raise WeightsError(
            f"{message} To use another encoder: model@deduplicate.encoder=NAME, with its own deduplicate.threshold."
        ) from error


if __name__ == "__main__":
    run("curate")
