"""Signatures of this package's functions and classes, read from their source without importing it.

A configuration is checked against the signature of its `_target_` before torch is imported. griffe reads the source;
annotations that need heavy modules (such as `Tensor`) are left unchecked.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import griffe

from stylesim.core.conf import PACKAGE
from stylesim.core.errors import ConfigError
from stylesim.core.wording import suggest

_LIGHT_MODULES = ("builtins", "collections.abc", "pathlib", "pydantic", "typing")
"""Modules that may be imported to resolve the names in an annotation."""


class Parameter(NamedTuple):
    """One parameter: its type (`Any` if unknown), whether it is required, and its description in the docstring."""

    type: Any
    required: bool
    description: str = ""


def signature(target: str) -> dict[str, Parameter]:
    """Return the parameters of a function or class of this package by name.

    Parameters of a base class are included where `__init__` passes `**options` on to it, or is inherited.

    Raises:
        ConfigError: If the module or the name does not exist.
    """
    module_name, _, name = target.rpartition(".")
    module = _read_module(module_name)
    if module is None:
        raise ConfigError(f"_target_={target}: there is no module {module_name} in stylesim.")
    found = module.members.get(name)
    if isinstance(found, griffe.Alias):
        return signature(found.target_path)
    if isinstance(found, griffe.Function):
        return _parameters(found, found)
    if isinstance(found, griffe.Class):
        return _class_parameters(found)
    known = [n for n, member in module.members.items() if isinstance(member, griffe.Function | griffe.Class)]
    raise ConfigError(f"_target_={target}: {module_name} has no {name!r}.{suggest(name, known)}")


@functools.cache
def _read_module(name: str) -> griffe.Module | None:
    path = PACKAGE.parent.joinpath(*name.split("."))
    file = next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)
    if file is None or not name.startswith(PACKAGE.name):
        return None
    return griffe.visit(name, filepath=file, code=file.read_text(encoding="utf-8"))


def _class_parameters(cls: griffe.Class) -> dict[str, Parameter]:
    inherited: dict[str, Parameter] = {}
    init = cls.members.get("__init__")
    passes_on = isinstance(init, griffe.Function) and any(
        p.kind is griffe.ParameterKind.var_keyword for p in init.parameters
    )
    if init is None or passes_on:
        for base in cls.bases:
            path = base.canonical_path if isinstance(base, griffe.Expr) else ""
            if path.startswith(f"{PACKAGE.name}."):
                inherited |= signature(path)
    if isinstance(init, griffe.Function):
        return inherited | _parameters(init, init if init.docstring else cls)
    descriptions = _descriptions(cls)
    fields = {
        name: Parameter(
            _resolve(member.annotation),
            member.value is None,
            descriptions.get(name, member.docstring.value if member.docstring else ""),
        )
        for name, member in cls.members.items()
        if isinstance(member, griffe.Attribute) and "instance-attribute" in member.labels and member.annotation
    }
    return inherited | fields


def _parameters(function: griffe.Function, documented: griffe.Object) -> dict[str, Parameter]:
    descriptions = _descriptions(documented)
    variadic = (griffe.ParameterKind.var_keyword, griffe.ParameterKind.var_positional)
    return {
        p.name: Parameter(_resolve(p.annotation), p.default is None, descriptions.get(p.name, ""))
        for p in function.parameters
        if p.name != "self" and p.kind not in variadic
    }


def _descriptions(documented: griffe.Object) -> dict[str, str]:
    """Return the `Args` section of a Google-style docstring."""
    if documented.docstring is None:
        return {}
    sections = griffe.parse_google(documented.docstring, warnings=False)
    return {
        parameter.name: " ".join(parameter.description.split())
        for section in sections
        if isinstance(section, griffe.DocstringSectionParameters)
        for parameter in section.value
    }


def _resolve(expression: str | griffe.Expr | None) -> Any:
    """Return an annotation as a type, or `Any` if resolving its names would need a heavy import."""
    if expression is None:
        return Any
    holder = type("Annotated", (), {"__annotations__": {"it": str(expression)}})
    try:
        names = {name.name: _object(name.canonical_path) for name in _names(expression)}
        return typing.get_type_hints(holder, globalns={}, localns=names, include_extras=True)["it"]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return Any


def _names(expression: str | griffe.Expr) -> Iterator[griffe.ExprName]:
    if isinstance(expression, griffe.Expr):
        yield from (node for node in expression.iterate(flat=True) if isinstance(node, griffe.ExprName))


def _object(path: str) -> Any:
    """Return the object with a dotted name: a type of a light module, or an alias such as `Schedule = Literal[...]`."""
    module_name, _, name = path.rpartition(".")
    if path == "pathlib.Path":
        return Path | str  # configurations write paths as strings
    if not module_name or module_name in _LIGHT_MODULES:
        return getattr(import_module(module_name or "builtins"), name)
    module = _read_module(module_name)
    member = module.members.get(name) if module else None
    if isinstance(member, griffe.Attribute) and isinstance(member.value, griffe.Expr):
        return _resolve(member.value)
    raise NameError(path)
