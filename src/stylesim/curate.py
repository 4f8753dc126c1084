"""python -m stylesim.curate: from captioned images of the web to deduplicated shards with tags."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from stylesim.config import check_encoders, suggest
from stylesim.errors import StylesimError
from stylesim.launch import run

FOLDERS = {
    "sources": "1-sources",
    "tags": "2-tags",
    "filter": "3-filter",
    "deduplicate": "4-deduplicate",
    "shard": "5-shards",
}
"""The stages in their order, and the folder of `out` that each leaves."""


def main(cfg: DictConfig) -> dict[str, float]:
    """Run `cfg.stages`, each on what the one before has left in `cfg.out`; one that is done is not run again.

    Interrupted, the same command goes on. Returns the counts of the stages, as `<stage>/<count>`.

    Raises:
        StylesimError: If a stage is unknown, its source is missing, or its folder was made with other settings.
    """
    from hydra.utils import instantiate

    from stylesim.curation.stage import Stage

    nodes = _nodes(cfg)
    if (node := nodes.get("deduplicate")) is not None:
        check_encoders(OmegaConf.create({"checkpoint": node.checkpoint, "model": node.encoder}))
    figures: dict[str, float] = {}
    out, before = Path(str(cfg.out)).expanduser(), None
    for name, folder in FOLDERS.items():
        if name in nodes:
            settings = OmegaConf.to_container(nodes[name], resolve=True)
            assert isinstance(settings, dict)
            decisive = {str(k): v for k, v in settings.items() if k != "threads"}  # of downloads, as many as one likes
            stage = Stage(out / folder, decisive, before, cfg.processes, redo=cfg.redo)
            counts = instantiate(nodes[name])(stage)
            print(f"{name}: {', '.join(f'{count:,} {what}' for what, count in counts.items())} ({out / folder})")
            figures |= {f"{name}/{what}": count for what, count in counts.items()}
        before = out / folder
    return figures


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
    return {name: cfg["source" if name == "sources" else name] for name in FOLDERS if name in cfg.stages}


if __name__ == "__main__":
    run("curate")
