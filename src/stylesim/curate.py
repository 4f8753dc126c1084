"""Turn captioned images from the web into deduplicated shards with tags.

    stylesim curate source=folder source.path=/my/images out=/my/curation
    stylesim curate source=contrastyles source.path=train.parquet source.fetch=true out=/my/curation
    stylesim curate stages=[tags] out=/my/curation tags.matching=reference redo=true
    stylesim curate stages=[deduplicate,shard] out=/my/curation +deduplicate.evaluation.wikiart=/data/wikiart

Each stage writes parquet files and summary.json into its own folder of `out`. A stage that is finished is not run
again, and after an interruption the same command continues.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from pydantic import Field, PositiveInt

from stylesim.core.errors import StylesimError
from stylesim.core.wording import suggest
from stylesim.runtime.config import check_encoders
from stylesim.runtime.launch import run
from stylesim.runtime.settings import CommandSettings

FOLDERS = {
    "sources": "1-sources",
    "tags": "2-tags",
    "filter": "3-filter",
    "deduplicate": "4-deduplicate",
    "shard": "5-shards",
}
"""The stages in their order, and the folder of `out` that each leaves."""


class Settings(CommandSettings):
    """The keys of `stylesim curate`; the stages' own are in conf/curate.yaml."""

    out: str = Field(description="The folder of the curation.")
    stages: list[str] = Field(list(FOLDERS), description="The stages to run, each on the result of the one before.")
    redo: bool = Field(False, description="Discard what a stage has made with other settings.")
    processes: PositiveInt | None = Field(None, description="Parts processed at once; null is one per core.")


def main(cfg: DictConfig) -> dict[str, float]:
    """Run `cfg.stages`, each on what the one before has left in `cfg.out`; one that is done is not run again.

    Interrupted, the same command goes on. Returns the counts of the stages, as `<stage>/<count>`.

    Raises:
        StylesimError: If a stage is unknown, its source is missing, or its folder was made with other settings.
    """
    from hydra.utils import instantiate

    from stylesim.curation.stage import SUMMARY, Stage

    nodes = _nodes(cfg)
    out, before = Path(str(cfg.out)).expanduser(), None
    if "deduplicate" in nodes:
        _find_encoder(nodes["deduplicate"], done=(out / FOLDERS["deduplicate"] / SUMMARY).exists())
    metrics: dict[str, float] = {}
    for name, folder in FOLDERS.items():
        if name in nodes:
            settings = OmegaConf.to_container(nodes[name], resolve=True)
            assert isinstance(settings, dict)
            decisive = {str(k): v for k, v in settings.items() if k != "threads"}  # of downloads, as many as one likes
            stage = Stage(out / folder, decisive, before, cfg.processes, redo=cfg.redo)
            try:
                counts = instantiate(nodes[name])(stage)
            except KeyboardInterrupt:
                print(f"stylesim: stopped in {out / folder}; the same command goes on there.", file=sys.stderr)
                raise SystemExit(130) from None
            print(f"{name}: {', '.join(f'{count:,} {what}' for what, count in counts.items())} ({out / folder})")
            metrics |= {f"{name}/{what}": count for what, count in counts.items()}
            nodes.pop(name)
        elif nodes:  # one that is still to come reads it
            _check_place(out / folder, before)
        before = out / folder
    return metrics


def _find_encoder(node: DictConfig, done: bool) -> None:
    """Have the weights that tell copies at hand before the stages that come first take their hours."""
    from hydra.utils import instantiate

    given = OmegaConf.create({"checkpoint": node.checkpoint, "model": node.encoder})
    if node.checkpoint is not None:
        check_encoders(given)
        return
    if done:
        return
    try:
        check_encoders(given)
        instantiate(node.encoder)()
    except StylesimError as error:
        mended = str(error).replace(" weights=<path>", " deduplicate.encoder.weights=<path>")
        raise StylesimError(
            f"{mended} Another encoder: model@deduplicate.encoder=NAME, with a deduplicate.threshold of its own."
        ) from error


def _check_place(folder: Path, before: Path | None) -> None:
    """Refuse to go on from a stage that was made of something else than what the one before it holds now."""
    from stylesim.curation.stage import SUMMARY, stage_digest

    if before is None or not all((path / SUMMARY).is_file() for path in (folder, before)):
        return
    if json.loads((folder / SUMMARY).read_text())["inputs"].get("before") != stage_digest(before):
        raise StylesimError(
            f"{before} has been made anew since {folder} was made of it: add {folder.name.partition('-')[2]} to"
            " stages=[...], and redo=true."
        )


def _nodes(cfg: DictConfig) -> dict[str, DictConfig]:
    """The configuration of each chosen stage."""
    for name in cfg.stages:
        if name not in FOLDERS:
            raise StylesimError(f"stages=[{name}] is no stage.{suggest(str(name), list(FOLDERS))}")
    if not cfg.stages:
        raise StylesimError(f"stages=[] is nothing to do. Known: {', '.join(FOLDERS)}")
    if "sources" in cfg.stages and "source" not in cfg:
        raise StylesimError(
            "source must be given: add source=laion, contrastyles, img2dataset or folder, and source.path=... to the"
            " command, or leave the stage out that reads it: stages=[tags,filter,...]"
        )
    if "sources" in cfg.stages and cfg.source.get("rows", 1) < 1:
        raise StylesimError(f"source.rows={cfg.source.rows}: a part has at least one row.")
    return {name: cfg["source" if name == "sources" else name] for name in FOLDERS if name in cfg.stages}


if __name__ == "__main__":
    run("curate")
