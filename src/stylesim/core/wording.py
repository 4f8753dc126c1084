"""Describe types and values, and suggest names, in error messages and help texts."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types

_ONE = {int: "an integer", float: "a number", str: "a string", type(None): "null"}
_SEVERAL = {int: "integers", float: "numbers", str: "strings"}


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the most similar known word, or the known words if none is similar."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(known)}."


def nearest_first(word: str, known: Iterable[str]) -> list[str]:
    """Sort known words by their similarity to `word`, the most similar first."""
    return sorted(known, key=lambda other: (-difflib.SequenceMatcher(None, word, other).ratio(), other))


def show_value(value: Any) -> str:
    """Return a value as YAML writes it on one line: `null`, `true`, `'text'`, `[1, 2]`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {show_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(show_value(item) for item in value) + "]"
    return repr(value)


def describe_type(annotation: Any) -> str:
    """Return which values an annotation allows, such as `a positive integer or null` or `bf16, fp16 or null`."""
    return _join(list(dict.fromkeys(_alternatives(annotation))))


def _alternatives(annotation: Any) -> list[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        if set(arguments) == {Path, str}:
            return ["a path"]
        # null comes last, however the annotation was written.
        ordered = sorted(arguments, key=lambda argument: argument is type(None))
        return [alternative for argument in ordered for alternative in _alternatives(argument)]
    if origin is Literal:
        return [str(value) if isinstance(value, str) else show_value(value) for value in arguments]
    if origin is Annotated:
        return [_constrained(*arguments)]
    if annotation is bool:
        return ["true", "false"]
    if annotation in _ONE:
        return [_ONE[annotation]]
    origin = origin or annotation
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return [f"a list of {len(arguments)} {_SEVERAL.get(arguments[0], 'values')}"]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return ["a mapping"]
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return [f"a list of {_SEVERAL.get(arguments[0], 'values')}" if arguments else "a list"]
    return ["any value" if annotation is Any else getattr(annotation, "__name__", str(annotation))]


def _constrained(annotation: Any, *constraints: Any) -> str:
    name = describe_type(annotation)
    for constraint in constraints:
        if isinstance(constraint, annotated_types.Gt) and constraint.gt == 0:
            name = f"a positive {name.split()[-1]}"
        elif isinstance(constraint, annotated_types.Gt):
            name += f" greater than {constraint.gt}"
        elif isinstance(constraint, annotated_types.Ge):
            name += f" of at least {constraint.ge}"
        elif isinstance(constraint, annotated_types.Le):
            name += f" of at most {constraint.le}"
    return name


def _join(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
