"""Finds the run that `resume=...` means."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from stylesim.core.errors import StylesimError
from stylesim.core.run_folder import LAST_CHECKPOINT

_NOT_COMPARED = ("resume", "run_dir")


def find_run(cfg: DictConfig, fresh: Path) -> Path:
    """The run folder to go on in; `fresh`, which Hydra has just made for this command, is removed if it is not that.

    `resume=true` is the newest run folder whose composed configuration is otherwise equal and that holds a checkpoint,
    or `fresh` alone, where a run has been there before (`hydra.run.dir=...`);
    `resume=PATH` is a run folder (or the `last.ckpt` in one). Raises `StylesimError` where there is none.
    """
    if cfg.resume is True:
        found = max(_equal_runs(cfg, fresh), key=lambda run: (run / LAST_CHECKPOINT).stat().st_mtime, default=None)
        if found is None and _was_used(fresh):
            raise StylesimError(
                f"resume=true: {fresh} holds a run without a checkpoint, or one of another configuration. Start it anew"
                " without resume, give the overrides that it had, or name another one: resume=PATH."
            )
        if found is None:
            raise StylesimError(
                "resume=true finds no run folder with this configuration and a checkpoint below outputs/, multirun/ or"
                f" {fresh.parent}. Give the same overrides as the run that stopped, or name it: resume=PATH."
            )
    else:
        found = Path(str(cfg.resume)).expanduser()
        found = found.parents[1] if found.name == LAST_CHECKPOINT.name else found
        if not (found / LAST_CHECKPOINT).is_file():
            raise StylesimError(f"resume={cfg.resume}: {found} is no run folder with {LAST_CHECKPOINT} in it.")
    # Of several ranks that a cluster has started, the others may be about to write there.
    alone = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1) == 1
    if alone and fresh.resolve() != found.resolve() and _is_untouched(fresh):
        shutil.rmtree(fresh, ignore_errors=True)
        with suppress(OSError):  # the folder of the day, if there is nothing else in it
            fresh.parent.rmdir()
    return found


def _equal_runs(cfg: DictConfig, fresh: Path) -> Iterator[Path]:
    wanted = _compared(cfg)
    roots = [fresh] if _was_used(fresh) else [Path("outputs"), Path("multirun"), fresh.parent]
    for root in {root.resolve() for root in roots}:
        for checkpoint in root.glob(f"**/{LAST_CHECKPOINT}"):
            run = checkpoint.parents[1]
            config = run / "config.yaml"
            # A run of another time that cannot be read is not this one's concern.
            with suppress(OmegaConfBaseException, YAMLError, OSError):
                if _compared(OmegaConf.load(config)) == wanted:
                    yield run


def _compared(cfg: Any) -> dict[str, Any]:
    content = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(content, dict)
    return {str(k): v for k, v in content.items() if k not in _NOT_COMPARED}


def _was_used(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()


def _is_untouched(folder: Path) -> bool:
    return all(f.name == ".hydra" or f.suffix == ".log" for f in folder.iterdir()) if folder.is_dir() else False
