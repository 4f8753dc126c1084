"""Errors of Hydra, OmegaConf and stylesim as sentences for the user."""

from __future__ import annotations

import re

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stylesim.core.errors import StylesimError
from stylesim.core.legacy_configs import suggest_key
from stylesim.core.wording import nearest_first

USER_ERRORS = (StylesimError, HydraException, OmegaConfBaseException)
"""Classes of errors that may be the user's."""
_EXTRAS = {
    "hydra/launcher": "The launcher is an extra: pip install 'stylesim[launchers]', or 'stylesim[ray]'.",
    "hydra/sweeper": "The sweeper is an extra: pip install 'stylesim[optuna]'.",
}


def explain(error: BaseException, command: str = "COMMAND") -> str | None:
    """Return what to tell the user, or None for an error of the program, which keeps its traceback.

    Args:
        error: What a command has raised.
        command: The name of the command, for hints.
    """
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    for link in chain:
        if isinstance(link, StylesimError):
            return str(link)
    if isinstance(error, InstantiationException):
        return None
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        return _unknown_option(error)
    if isinstance(error, OverrideParseException):
        return f"The override {error.override} cannot be read: {_first_line(error)}. Quote it: 'key=\"value\"'."
    if match := re.match(r"Could not override '([^']+)'", str(error)):
        return _unknown_key(match[1], chain, command)
    return " ".join(_first_line(link) for link in chain[:2])


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
