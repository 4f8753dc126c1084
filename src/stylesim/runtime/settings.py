"""The keys of the commands: declared as pydantic models, given to Hydra, checked, and described.

Each command's module has a class `Settings`. Its fields are the command's own keys; the values of `conf/<command>.yaml`
override their defaults, which Hydra finds as `settings/<command>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from stylesim.core.conf import conf_dir
from stylesim.core.signatures import signature
from stylesim.core.targets import missing_value, raise_problems, target_problems, wrong_value
from stylesim.core.wording import describe_type, show_value, suggest
from stylesim.runtime.commands import read_docstring

PLAIN_TEXT: JsonDict = {"plain_text": True}
"""`json_schema_extra` of a key whose value on the command line is taken as it is, without Hydra's grammar."""


class CommandSettings(BaseModel):
    """The keys that every command has. A command's `Settings` extends it."""

    model_config = ConfigDict(strict=True)

    run_dir: str | None = Field(None, description="The run folder; set by the launcher from hydra.run.dir=PATH.")


class EmbeddingSettings(CommandSettings):
    """The keys of a command that embeds images with an existing encoder."""

    checkpoint: str | None = Field(None, description="Weights of a run (best.safetensors), instead of model=NAME.")
    csd_weights: str = Field("official", description="Which weights model=csd_vitb and model=csd_vitl load.")
    allow_untrained: bool = Field(False, description="Accept an encoder whose head still has its initial values.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto is CUDA, MPS or CPU.")
    precision: Literal["bf16", "fp16"] | None = Field(None, description="Autocast of the encoder; null is float32.")
    flips: bool = Field(False, description="Average the descriptors of each image and of its mirror image.")
    colour: Literal["srgb", "raw"] | None = Field(
        None, description="Embedded colour profiles: srgb converts them, raw ignores them; null is as in training."
    )
    accept_damaged: bool = Field(False, description="Embed what can be decoded of damaged JPEGs and PNGs.")
    batch_size: PositiveInt = Field(64, description="Images per forward pass.")


class Key(NamedTuple):
    """One key of a command, as help and documentation show it."""

    name: str
    type: str
    default: str
    description: str


class Group(NamedTuple):
    """One group of configurations: `model=csd_lite0`, `+model@controls.NAME=palette`."""

    name: str
    default: str
    options: list[str]


def load_settings(command: str) -> type[CommandSettings]:
    """Return the class `Settings` of a command's module."""
    return import_module(f"stylesim.{command}").Settings


def register_settings(command: str) -> None:
    """Make the defaults and the help text of a command known to Hydra, as `settings/<command>`."""
    defaults: dict[str, Any] = {
        name: "???" if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in load_settings(command).model_fields.items()
    }
    # Hydra substitutes $WORD in the template.
    text = {"app_name": f"stylesim {command}", "template": help_text(command).replace("$", "$$")}
    ConfigStore.instance().store(
        name=command, group="settings", package="_global_", node={**defaults, "hydra": {"help": text}}
    )


def quote_plain_text(command: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command line with the values of plain-text keys quoted for Hydra.

    Without it, Hydra would refuse the quotes, blanks and equals signs in `where=period = '1890s'`. A key takes plain
    text if its field has `json_schema_extra=PLAIN_TEXT`. null, and a value that begins with a quote, stay as they are.
    """
    keys = [
        name for name, field in load_settings(command).model_fields.items() if field.json_schema_extra == PLAIN_TEXT
    ]
    quoted = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in keys and value and value != "null" and value[0] not in "'\"":
            # In Hydra's quotes a backslash is special before a quote only, and `${` begins an interpolation.
            escaped = re.sub(r'\\*(?="|$)', lambda backslashes: backslashes[0] * 2, value)
            escaped = escaped.replace('"', r"\"").replace("${", r"\${")
            argument = f'{key}="{escaped}"'
        quoted.append(argument)
    return quoted


def check_config(cfg: DictConfig, command: str) -> None:
    """Check a composed configuration: the command's own keys and every `_target_` node.

    Raises:
        ConfigError: With one line for each unknown key, missing key and value of a wrong type.
    """
    fields = load_settings(command).model_fields
    content, groups = _read_conf(command)
    known = {*fields, *content, *(group.partition("@")[2].partition(".")[0] or group for group in groups)}
    problems = [
        f"{key} is not a key of stylesim {command}.{suggest(str(key), known)}" for key in cfg if key not in known
    ]
    for key, field in fields.items():
        if OmegaConf.is_missing(cfg, key):
            problems.append(missing_value(key))
            continue
        value = OmegaConf.to_container(cfg[key], resolve=True) if OmegaConf.is_config(cfg[key]) else cfg[key]
        if problem := wrong_value(key, value, _annotation(field)):
            problems.append(problem)
    raise_problems(problems + target_problems(cfg))


def describe_keys(command: str) -> list[Key]:
    """Return every key of a command with its type, default and description, for help and documentation.

    First the command's own keys, then those of the nodes in `conf/<command>.yaml` (`learning.gather`), whose types and
    descriptions are those of their target's parameters. Keys of chosen groups are not included.
    """
    keys = [
        Key(
            name,
            describe_type(_annotation(field)),
            "required" if field.is_required() else _plain(field.get_default(call_default_factory=True)),
            field.description or "",
        )
        for name, field in load_settings(command).model_fields.items()
    ]
    for node, values in _read_conf(command)[0].items():
        if isinstance(values, dict) and "_target_" in values:
            parameters = signature(values["_target_"])
            keys += [
                Key(
                    f"{node}.{name}",
                    describe_type(parameters[name].type),
                    "required" if value == "???" else _plain(value),
                    parameters[name].description,
                )
                for name, value in values.items()
                if name in parameters
            ]
    return keys


def describe_groups(command: str) -> list[Group]:
    """Return the groups of configurations that a command takes parts from, each with its default and its options."""
    hydra = OmegaConf.load(conf_dir() / f"{command}.yaml").hydra
    roots = [conf_dir(), *(Path(path) for path in hydra.get("searchpath", []))]
    groups = []
    for name, default in _read_conf(command)[1].items():
        folder = name.partition("@")[0]
        options = [file.stem for root in roots for file in sorted((root / folder).glob("*.yaml"))]
        groups.append(Group(name, _plain(default), options))
    return groups


def help_text(command: str) -> str:
    """Return what `stylesim COMMAND --help` shows."""
    lines = [f"stylesim {command}: {read_docstring(command)}"]
    if groups := describe_groups(command):
        lines += ["", "Groups (choose a part with GROUP=NAME):"]
        lines += [f"  {group.name}={group.default}    ({', '.join(group.options)})" for group in groups]
    lines += ["", "Keys (change a value with KEY=VALUE; the keys of the groups are shown by --cfg job):"]
    keys = [key for key in describe_keys(command) if key.name != "run_dir"]
    lines += [f"  {key.name}={key.default}    {key.type}. {key.description}".rstrip() for key in keys]
    lines += ["", "Remove a key with ~KEY (~data.probes): an empty value merges with the present one (data.probes={})."]
    lines += ["Flags: --cfg job shows the composed configuration, -m runs a sweep; all of them: --hydra-help"]
    return "\n".join(lines)


def _read_conf(command: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content of `conf/<command>.yaml`, and the groups of its defaults list with their choices."""
    content = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{command}.yaml"))
    assert isinstance(content, dict)
    groups = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, dict):
            [(group, choice)] = entry.items()
            if not group.startswith(("override ", "optional ")):
                groups[group] = choice
    return {str(key): value for key, value in content.items()}, groups


def _plain(value: Any) -> str:
    """Return a default as a user types it: a string without quotes."""
    return value if isinstance(value, str) else show_value(value)


def _annotation(field: FieldInfo) -> Any:
    """Return the annotation of a field with its constraints."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
