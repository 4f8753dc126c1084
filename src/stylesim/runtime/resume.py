"""Find the run folder that `resume=...` means, refuse one that is in use, and compare the configurations of runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from stylesim.core.errors import ConfigError
from stylesim.core.legacy_configs import current_config
from stylesim.core.ranks import launched_world_size
from stylesim.core.run_folder import LAST_CHECKPOINT, RESULTS

_NOT_COMPARED = ("resume", "run_dir")
_UNUSED = (".hydra", "config.yaml", "provenance.json")


def find_run(cfg: DictConfig, fresh: Path) -> Path:
    """Return the run folder to continue in, and remove `fresh` if it is another one.

    Args:
        cfg: `resume=true` means the newest run folder with the same configuration and a checkpoint, among those below
            outputs/, multirun/ and the parent of `fresh`; if a run has been in `fresh` before (`hydra.run.dir=...`),
            only that one. `resume=PATH` names a run folder, or the last.ckpt in one.
        fresh: The folder that Hydra has just made for this command.

    Raises:
        ConfigError: If there is no such run folder.
    """
    if cfg.resume is True:
        found = max(_equal_runs(cfg, fresh), key=lambda run: (run / LAST_CHECKPOINT).stat().st_mtime, default=None)
        if found is None and was_used(fresh):
            raise ConfigError(
                f"resume=true: {fresh} holds a run without a checkpoint, or with another configuration. Start again"
                " without resume, give the overrides of that run, or name another one with resume=PATH."
            )
        if found is None:
            raise ConfigError(
                "resume=true found no run folder with this configuration and a checkpoint below outputs/, multirun/ or"
                f" {fresh.parent}. Give the overrides of the run that stopped, or name its folder with resume=PATH."
            )
    else:
        found = Path(str(cfg.resume)).expanduser()
        found = found.parents[1] if found.name == LAST_CHECKPOINT.name else found
        if not (found / LAST_CHECKPOINT).is_file():
            raise ConfigError(f"resume={cfg.resume}: {found} is not a run folder: there is no {LAST_CHECKPOINT} in it.")
    if fresh.resolve() != found.resolve() and not was_used(fresh):
        remove_unused_folder(fresh)
    return found


def refuse_used_folder(run_dir: Path, command: str = "train") -> None:
    """Refuse to start a new run in the folder of another one, whose results it would mix with its own.

    A command other than `train` may use its own folder again: it continues there, or deletes its results first.

    Raises:
        ConfigError: If the folder holds results of another run.
    """
    found = [name for name in RESULTS if (run_dir / name).exists()]
    former = _former_command(run_dir)
    if not found or former == command != "train":
        return
    resume = "add resume=true to continue it, or " if command == former == "train" else ""
    raise ConfigError(
        f"{run_dir} holds the results of another run{f' of stylesim {former}' if former else ''} ({', '.join(found)}):"
        f" {resume}name another folder with hydra.run.dir=PATH (in a sweep: hydra.sweep.dir=PATH)."
    )


def _former_command(run_dir: Path) -> str | None:
    """Return the command that has last run in a folder, as its provenance says."""
    try:
        return json.loads((run_dir / "provenance.json").read_text(encoding="utf-8"))["command"].split()[1]
    except (OSError, ValueError, LookupError):
        return None


def remove_unused_folder(folder: Path) -> None:
    """Remove a run folder in which a command has written nothing but its configuration and its log.

    If a cluster has started the ranks of the job, the folder is kept: another rank may be about to write there.
    """
    if launched_world_size() > 1 or not folder.is_dir() or folder.resolve() == Path.cwd():
        return
    if all(file.name in _UNUSED or file.suffix == ".log" for file in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # the folder of the day and outputs/, if nothing else is in them
            folder.parent.rmdir()
            if folder.parents[1].name == "outputs":
                folder.parents[1].rmdir()


def comparable_config(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as plain values, without what may differ between a run and its continuation.

    Configurations of earlier versions are translated to the names of this version.
    """
    content = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    assert isinstance(content, Mapping)
    updated = current_config(content)
    return {key: _drop_nulls(value) for key, value in updated.items() if key not in _NOT_COMPARED}


def _drop_nulls(node: Any) -> Any:
    """Return a node without its null settings: a setting that an earlier version did not have is null in this one."""
    if isinstance(node, Mapping):
        return {key: _drop_nulls(value) for key, value in node.items() if value is not None}
    return [_drop_nulls(item) for item in node] if isinstance(node, list) else node


def _equal_runs(cfg: DictConfig, fresh: Path) -> Iterator[Path]:
    wanted = comparable_config(cfg)
    roots = [fresh] if was_used(fresh) else [Path("outputs"), Path("multirun"), fresh.parent]
    for root in {root.resolve() for root in roots}:
        for checkpoint in root.glob(f"**/{LAST_CHECKPOINT}"):
            run = checkpoint.parents[1]
            config = run / "config.yaml"
            # Other runs may be unreadable: a half-written file, a variable that is not set.
            with suppress(OmegaConfBaseException, YAMLError, OSError):
                content = OmegaConf.load(config)
                if isinstance(content, DictConfig) and comparable_config(content) == wanted:
                    yield run


def was_used(folder: Path) -> bool:
    """Return whether a command has run in this folder before."""
    return (folder / "config.yaml").is_file()
