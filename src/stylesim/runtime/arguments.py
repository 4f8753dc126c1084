"""Convert the arguments of a command line, as people type them, to the form that Hydra reads."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write

from stylesim.core.errors import ConfigError

_OVERRIDE = re.compile(r"(?P<key>[^=\s'\"]+)=(?P<value>.*)", re.DOTALL)
_PATH = re.compile(r"\s*(~|\.{0,2}/)")
_HOME = re.compile(r"~[\w.-]*(/|$)")


def readable_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command line as Hydra reads it.

    - Flags may stand anywhere, also before overrides (`experiment=paper_table1 -m device=cpu`).
    - `--key=value`, as `wandb agent` writes it, is `key=value`.
    - A value that Hydra's grammar does not allow, such as a path with `(`, `=` or `ü`, is quoted. So is a path with a
      comma, unless it can mean several values.
    - `~` is the home folder in `hydra.run.dir` and `hydra.sweep.dir`; `expand_home` does the same for all other keys.

    Raises:
        ConfigError: If an argument is not UTF-8.
    """
    for argument in arguments:
        if _is_not_utf8(argument):
            raise ConfigError(
                f"{argument.encode('utf-8', 'backslashreplace').decode()} is not UTF-8, so it cannot be an argument."
                " Give a folder above it, or a symbolic link to it."
            )
    overrides, flags = _split_flags(arguments)
    multirun = not {"-m", "--multirun"}.isdisjoint(flags)
    return [*(_readable(override, multirun) for override in overrides), *flags]


def quote(value: str) -> str:
    """Return a text in the quotes of Hydra's grammar."""
    return QuotedString(value, Quote.single).with_quotes()


def quote_for_lightning(value: str) -> str:
    """Return a text for Lightning, which puts it between double quotes when it starts ranks."""
    return QuotedString(value, Quote.double).with_quotes()[1:-1]


def quoted_override(override: str) -> str:
    """Return how to type an override in a shell if its value is a single text."""
    key, _, value = override.partition("=")
    double_quoted = QuotedString(value, Quote.double).with_quotes()
    return shlex.quote(f"{key}={double_quoted}")


def expand_home(node: DictConfig | ListConfig) -> None:
    """Replace `~` at the beginning of every path of a configuration by the home folder, in place."""
    with read_write(node), open_dict(node) if isinstance(node, DictConfig) else nullcontext():
        keys: list[Any] = list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))
        for key in keys:
            if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
                continue
            value = node[key]
            if OmegaConf.is_config(value):
                expand_home(value)
            elif isinstance(value, str) and _HOME.match(value):
                node[key] = os.path.expanduser(value)
            if isinstance(node, DictConfig) and isinstance(key, str) and _HOME.match(key):  # data.root={~/shards: 2}
                node[os.path.expanduser(key)] = node.pop(key)


def _split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide a command line into overrides and Hydra's flags with their values."""
    options = get_args_parser()._option_string_actions
    overrides, flags = [], []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name = argument.partition("=")[0]
        if argument.startswith("--") and "=" in argument and name not in options:
            overrides.append(argument[2:])
        elif argument.startswith("-") and name != "-":
            flags.append(argument)
            option = options.get(argument)
            takes_value = option is not None and (option.nargs is None or option.nargs == "?")
            if takes_value and waiting and not (option and option.nargs == "?" and waiting[0] not in option.choices):  # type: ignore[operator]
                flags.append(waiting.pop(0))
        else:
            overrides.append(argument)
    return overrides, flags


def _readable(override: str, multirun: bool) -> str:
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        return override
    key, value = match["key"], match["value"]
    is_quoted = value[:1] in ("'", '"')
    if key in ("hydra.run.dir", "hydra.sweep.dir"):
        value = os.path.expanduser(value) if _HOME.match(value) else value
        if not is_quoted and _parses(value) != (True, False):
            return f"{key}={quote(value)}"  # never several values
    if not is_quoted and "${" not in value:
        value = _readable_value(value, multirun)
    return f"{key}={value}"


def _readable_value(value: str, multirun: bool) -> str:
    readable, several = _parses(value)
    if readable and not several:
        return value
    if value and os.path.exists(os.path.expanduser(value)):
        return quote(value)
    if (items := re.fullmatch(r"\[([^][{}'\"]*)\]", value)) and not readable:
        return f"[{','.join(map(_readable_item, items[1].split(',')))}]"
    if value[:1] in ("[", "{") or re.match(r"\w+\(", value):  # a list, a mapping, a function such as range(1, 5)
        return value
    parts = value.split(",")
    is_one_path = bool(_PATH.match(value)) and not any(_PATH.match(part) for part in parts[1:])
    if len(parts) == 1 or (is_one_path and not multirun):
        return quote(value)
    if not multirun:  # `explain` says what to type
        return value
    return ",".join(map(_readable_item, parts))


def _readable_item(value: str) -> str:
    return value if _parses(value)[0] else quote(value.strip())


def _parses(value: str) -> tuple[bool, bool]:
    """Return whether Hydra can read a value, and whether it reads several values of a sweep."""
    try:
        override = OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return False, False
    return True, override.is_choice_sweep() and "," in value and not re.match(r"\w+\(", value)


def _is_not_utf8(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
