"""Errors of Hydra, OmegaConf and stylesim as sentences for the user."""

from __future__ import annotations

import errno
import os
import re
import traceback

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stylesim.core.errors import StylesimError
from stylesim.core.legacy_configs import suggest_key
from stylesim.core.wording import nearest_first
from stylesim.runtime.arguments import quoted_override

USER_ERRORS = (StylesimError, HydraException, OmegaConfBaseException, OSError)
"""Classes of errors that may be the user's."""
_PLACE_ERRORS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
"""Errors of the operating system that mean that a place cannot be used."""
_EXTRAS = {
    "hydra/launcher": "The launcher is an extra: pip install 'stylesim[launchers]', or 'stylesim[ray]'.",
    "hydra/sweeper": "The sweeper is an extra: pip install 'stylesim[optuna]'.",
}


def explain(error: BaseException, command: str = "COMMAND") -> str | None:
    """Return what to tell the user, or None for an error of the program, which keeps its traceback.

    Args:
        error: The error that a command has raised.
        command: The name of the command, for hints.
    """
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    for link in chain:
        if isinstance(link, StylesimError):
            return str(link)
        if isinstance(link, OSError) and (link.errno in _PLACE_ERRORS or _raised_by_mkdir(link)):
            return _unusable_place(link)
    if isinstance(error, InstantiationException) or not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        return _unknown_option(error)
    if isinstance(error, OverrideParseException):
        override = str(error.override)
        if "=" not in override:
            return f"{override} is not an override: type KEY=VALUE, GROUP=NAME, or ~KEY to remove a key."
        return f"The override {override} cannot be read. If its value is one text, type {quoted_override(override)}."
    if match := re.match(r"\s*Ambiguous value for argument '(.+)'\n|Sweep parameters '(.+)' requires", str(error)):
        return _several_values(match[1] or match[2])
    if match := re.match(r"Could not override '([^']+)'", str(error)):
        return _unknown_key(match[1], chain, command)
    return " ".join(_first_line(link) for link in chain[:2])


def _raised_by_mkdir(error: OSError) -> bool:
    """Return whether a folder could not be made, which some file systems report as one that does not exist."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].name in ("mkdir", "makedirs")


def _unusable_place(error: OSError) -> str:
    """Name the file or folder that cannot be used, and why."""
    reason = error.strerror or os.strerror(error.errno or 0)
    hints = {errno.ENOSPC: "Free some space", errno.EDQUOT: "Free some space", errno.EACCES: "Change its permissions"}
    hint = f"{hints[error.errno]}, or choose" if error.errno in hints else "Choose"
    return f"{error.filename} cannot be used: {reason}. {hint} another place."


def _several_values(override: str) -> str:
    key, _, value = override.partition("=")
    return (
        f"{override} has several values. For a list, type '{key}=[{value}]'; for one text, {quoted_override(override)};"
        " for a sweep over them, add -m."
    )


def _unknown_option(error: MissingConfigException) -> str:
    """Name the option of a group that does not exist, and those that do, the nearest first."""
    group, _, option = str(error.missing_cfg_file).strip("/").rpartition("/")
    sentence = f"{group}={option}: there is no such option."
    if error.options:
        nearest = nearest_first(option, error.options)
        sentence += f" Did you mean {nearest[0]}? Options: {', '.join(nearest)}."
    extra = next((hint for prefix, hint in _EXTRAS.items() if group.startswith(prefix)), None)
    return f"{sentence} {extra}" if extra else sentence


def _unknown_key(key: str, chain: list[BaseException], command: str) -> str:
    """Name the key that does not exist, and the nearest of those beside it."""
    parent, _, name = key.rpartition(".")
    node = next((link.parent_node for link in chain if isinstance(link, OmegaConfBaseException)), None)
    known = [str(other) for other in node if other != "hydra"] if OmegaConf.is_dict(node) else []  # type: ignore[union-attr]
    within = f" of {parent}" if parent else ""
    hint = f" All keys and their values: stylesim {command} --cfg job"
    return f"{name} is not a key{within}.{suggest_key(key, known) if known else ''}{hint}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
