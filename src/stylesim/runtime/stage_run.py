"""Run the chosen stages of a command, each on the result of the stage before it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stylesim.core.errors import ConfigError
from stylesim.core.wording import suggest

RunStage = Callable[[str, Path, Path | None], Mapping[str, Any]]
"""Runs a stage by its name, its folder and the folder of the stage before it; returns its counts."""

logger = logging.getLogger(__name__)


def chosen_stages(stages: Sequence[str], folders: Mapping[str, str]) -> list[str]:
    """Return the stages to run, in the order of `folders`.

    Args:
        stages: The names that the user gave.
        folders: The folder of each stage by its name, in order.

    Raises:
        ConfigError: If a name is not a stage, or there is none.
    """
    for name in stages:
        if name not in folders:
            raise ConfigError(f"stages=[{name}] is not a stage.{suggest(str(name), list(folders))}")
    if not stages:
        raise ConfigError(f"stages must name at least one of {', '.join(folders)}, got [].")
    return [name for name in folders if name in stages]


def run_stages(chosen: Sequence[str], folders: Mapping[str, str], out: Path, run_stage: RunStage) -> dict[str, float]:
    """Run the chosen stages and print the counts of each.

    Args:
        chosen: Names of stages, in order.
        folders: The folder of each stage by its name, in order.
        out: The work folder, which holds these folders.
        run_stage: Runs one stage. If it is interrupted from the keyboard, the process exits with status 130.

    Returns:
        The counts as `<stage>/<count>`.

    Raises:
        ConfigError: If a stage that is not chosen was made from an older result of the stage before it.
    """
    metrics: dict[str, float] = {}
    before = None
    left = list(chosen)
    for name, folder in folders.items():
        if name in left:
            left.remove(name)
            try:
                counts = run_stage(name, out / folder, before)
            except KeyboardInterrupt:
                logger.warning(f"Interrupted in {out / folder}: run the same command again to continue.")
                raise SystemExit(130) from None
            print(f"{name}: {', '.join(f'{count:,} {what}' for what, count in counts.items())} ({out / folder})")
            metrics |= {f"{name}/{what}": count for what, count in counts.items()}
        elif left:  # a later stage reads this one
            _check_order(out / folder, before)
        before = out / folder
    return metrics


def _check_order(folder: Path, before: Path | None) -> None:
    """Refuse to continue from a stage if the stage before it has been made again since."""
    from stylesim.core.stages.stage import SUMMARY, stage_digest

    if before is None or not all((path / SUMMARY).is_file() for path in (folder, before)):
        return
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    if summary["inputs"].get("before") != stage_digest(before):
        raise ConfigError(
            f"{before} has been made again since {folder} was made from it: add {folder.name.partition('-')[2]} to"
            " stages=[...], and redo=true."
        )
