"""Check the `_target_` nodes of a composed configuration before anything heavy is imported.

A node whose `_target_` is in this package is checked against the signature of that function or class, so the name, type
and default of a parameter are written in only one place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stylesim.core.conf import PACKAGE
from stylesim.core.errors import ConfigError
from stylesim.core.legacy_configs import suggest_key
from stylesim.core.signatures import signature
from stylesim.core.wording import describe_type, show_value


def check_targets(cfg: DictConfig) -> None:
    """Check every `_target_` node of this package.

    Raises:
        ConfigError: With one line for each unknown key, missing key and value of a wrong type.
    """
    raise_problems(target_problems(cfg))


def target_problems(cfg: DictConfig) -> list[str]:
    """Return an error message for each unknown key, missing key and value of a wrong type in `_target_` nodes."""
    return [problem for path, node in _target_nodes(cfg) for problem in _problems(path, node)]


def raise_problems(problems: list[str]) -> None:
    """Raise one `ConfigError` that lists all problems, if there are any."""
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        raise ConfigError("The configuration has several errors:\n  " + "\n  ".join(problems))


def wrong_value(key: str, value: Any, annotation: Any) -> str | None:
    """Return an error message if a value does not fit an annotation, otherwise None.

    Plain values are checked strictly, because they are passed on without conversion: 1e3 is no integer.

    Args:
        key: The key, as the message names it.
        value: Its value.
        annotation: The type that the value must have.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(annotation).validate_python(value, strict=isinstance(value, bool | int | float | str))
    except ValidationError:
        return f"{key} must be {describe_type(annotation)}, got {show_value(value)}."
    return None


def missing_value(key: str) -> str:
    """Return the error message for a mandatory key that has no value."""
    return f"{key} must be given: add {key}=... to the command."


def _target_nodes(node: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    if not OmegaConf.is_config(node):
        return
    if OmegaConf.is_dict(node) and str(node.get("_target_", "")).startswith(f"{PACKAGE.name}."):
        yield path, node
    keys = node.keys() if OmegaConf.is_dict(node) else range(len(node))
    for key in keys:
        if not OmegaConf.is_missing(node, key):
            yield from _target_nodes(node[key], f"{path}.{key}" if path else str(key))


def _problems(path: str, node: DictConfig) -> Iterator[str]:
    content = OmegaConf.to_container(node, resolve=True)
    assert isinstance(content, dict)
    values = {str(key): value for key, value in content.items()}
    target, partial = values["_target_"], values.get("_partial_", False)
    values = {key: value for key, value in values.items() if not (key.startswith("_") and key.endswith("_"))}
    parameters = signature(target)
    for key, value in values.items():
        if key not in parameters:
            yield f"{path}.{key} is not a parameter of {target}.{suggest_key(f'{path}.{key}', parameters)}"
        elif value == "???":
            yield missing_value(f"{path}.{key}")
        elif not (isinstance(value, Mapping) and "_target_" in value) and (
            problem := wrong_value(f"{path}.{key}", value, parameters[key].type)
        ):
            yield problem
    if not partial:
        for key, parameter in parameters.items():
            if parameter.required and key not in values:
                yield f"{path}.{key} is missing: {target} requires it. Add {path}.{key}=... to the command."
