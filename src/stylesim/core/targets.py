"""Where configurations are found, and how a composed one is checked before anything heavy is imported.

A node with a `_target_` in this package is checked against the *signature of its target*, which is read from the source
without importing it: a parameter's name, annotation and default stand in one place, and `torch` stays out of the
way of a typing mistake. Everything here is quick and knows nothing of models.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from stylesim.core.errors import StylesimError

PACKAGE = Path(__file__).parents[1]
# What an annotation of a configurable parameter may be made of; anything else is left to the target.
_NAMES = {
    "Any": Any,
    "Literal": Literal,
    "Mapping": Mapping,
    "Sequence": Sequence,
    "Path": Path | str,
    "bool": bool,
    "dict": dict,
    "float": float,
    "int": int,
    "list": list,
    "str": str,
    "tuple": tuple,
}

# The keys of the entry points themselves: the values, or the types, that each may have.
_ENTRY: dict[str, tuple[Any, ...]] = {
    "seed": (int,),
    "resume": (bool, str),
    "objective": (None, str),
    "checkpoint": (None, str),
    "descriptors": (None, str),
    "cache": (None, str),
    "allow_untrained": (True, False),
    "device": ("auto", "cpu", "cuda", "mps"),
    "precision": (None, "bf16", "fp16"),
    "flips": (True, False),
    "gaps": (True, False),
    "batch_size": (int,),
    "csd_weights": (str,),
    "parquet": (None, str),
    "label": (str,),
    "neighbours": (int,),
    "runs": (str,),
    "against": (None, str),
    "wandb": (None, str),
    "source": (str, DictConfig),
    "folder": (str,),
    "out": (None, str),
    "shard_size": (int,),
    "max_size": (None, int),
    "gzip": (True, False),
    "processes": (None, int),
    "verify": (True, False),
    "redo": (True, False),
}

_COUNTS = ("batch_size", "shard_size", "max_size", "processes", "neighbours")


def conf_dir() -> Path:
    """The folder of the Hydra groups: beside the package in a wheel, at the top of a checkout otherwise."""
    installed = PACKAGE / "conf"
    return installed if installed.is_dir() else PACKAGE.parents[1] / "conf"


def embedded(path: str) -> str:
    """A path of the checkout (`data/stylecross/train`) from wherever the command is run; `${embedded:...}` in YAML."""
    return str(PACKAGE.parents[1] / path)


OmegaConf.register_new_resolver("embedded", embedded, replace=True)
OmegaConf.register_new_resolver("conf", lambda group: str(conf_dir() / group), replace=True)


def check_config(cfg: DictConfig) -> None:
    """Check every `_target_` node of a composed configuration that belongs to this package.

    Raises `StylesimError` with one line for each unknown or missing key and each value of a wrong type.
    """
    complaints = [line for path, node in _targets(cfg) for line in _complaints(path, node)]
    complaints += [
        f"{key} must be given: add {key}=... to the command." for key in cfg if OmegaConf.is_missing(cfg, key)
    ]
    complaints += [
        f"{key}={cfg[key]!r} does not fit: it should be {' or '.join(getattr(k, '__name__', repr(k)) for k in known)}."
        for key, known in _ENTRY.items()
        if key in cfg
        and not OmegaConf.is_missing(cfg, key)
        and not (cfg[key] in known or any(isinstance(k, type) and type(cfg[key]) is k for k in known))
    ]
    counts = {key: cfg.get(key) for key in _COUNTS}
    complaints += [
        f"{k}={n} does not fit: it is 1 at least." for k, n in counts.items() if isinstance(n, int) and n < 1
    ]
    if complaints:
        raise StylesimError("The configuration is not right:\n  " + "\n  ".join(complaints))


def suggest(word: str, known: Sequence[str]) -> str:
    """` Did you mean 'x'?`, or the list of what is known where nothing is close."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(sorted(known))}."


def _targets(node: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    if not OmegaConf.is_config(node):
        return
    if OmegaConf.is_dict(node) and str(node.get("_target_", "")).startswith("stylesim."):
        yield path, node
    keys = node.keys() if OmegaConf.is_dict(node) else range(len(node))
    for key in keys:
        if not OmegaConf.is_missing(node, key):
            yield from _targets(node[key], f"{path}.{key}" if path else str(key))


def _complaints(path: str, node: DictConfig) -> Iterator[str]:
    from pydantic import TypeAdapter, ValidationError

    values = {str(k): v for k, v in OmegaConf.to_container(node, resolve=True).items()}  # type: ignore[union-attr]
    target = values.pop("_target_")
    partial = values.pop("_partial_", False)
    values.pop("_convert_", None)
    values.pop("_card_", None)
    parameters = signature(target)
    for key, value in values.items():
        if key not in parameters:
            yield f"{path}.{key} is unknown to {target}.{suggest(key, list(parameters))}"
        elif value == "???":
            yield f"{path}.{key} must be given: add {path}.{key}=... to the command."
        elif not (isinstance(value, Mapping) and "_target_" in value):
            try:
                # Strict for plain values, since they are passed on as they are: 1e3 is no number of steps.
                plain = isinstance(value, bool | int | float | str)
                TypeAdapter(parameters[key][0]).validate_python(value, strict=plain)
            except ValidationError as error:
                reason = error.errors()[0]["msg"].replace("Input should", "it should")
                yield f"{path}.{key}={value!r} does not fit: {reason}."
    if not partial:
        for key in parameters.keys() - values.keys():
            if parameters[key][1]:
                yield f"{path}.{key} is missing, and {target} needs it."


def signature(target: str) -> dict[str, tuple[Any, bool]]:
    """Parameters of a function or class of this package: name -> (type, whether it must be given).

    Raises `StylesimError` if the module or the name does not exist.
    """
    module, _, name = target.rpartition(".")
    spec = importlib.util.find_spec(module) if _is_module(module) else None
    if spec is None or spec.origin is None:
        raise StylesimError(f"_target_: {target} names no module of stylesim.")
    tree = ast.parse(Path(spec.origin).read_text())
    found = next((n for n in tree.body if getattr(n, "name", None) == name), None)
    if found is None:
        known = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        raise StylesimError(f"_target_: {module} has no {name!r}.{suggest(name, known)}")
    names = dict(_NAMES)
    for n in tree.body:  # aliases of the module: Schedule = Literal["constant", "cosine"]
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name):
            names[n.targets[0].id] = _evaluate(n.value, names)
    bases: list[str] = []
    if isinstance(found, ast.ClassDef):
        init = next((n for n in found.body if getattr(n, "name", None) == "__init__"), None)
        if init is None:
            return _fields(found, names)
        bases = [b.id for b in found.bases if isinstance(b, ast.Name)]
        found = init
    assert isinstance(found, ast.FunctionDef)
    inherited = {}
    if found.args.kwarg and bases:  # **options go on to the base class, which stands in the same module
        inherited = signature(f"{module}.{bases[0]}")
    arguments = found.args.posonlyargs + found.args.args
    optional = len(arguments) - len(found.args.defaults)
    needed = [(a, i < optional) for i, a in enumerate(arguments) if a.arg != "self"]
    needed += [(a, d is None) for a, d in zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True)]
    return inherited | {a.arg: (_evaluate(a.annotation, names), required) for a, required in needed}


def _fields(dataclass: ast.ClassDef, names: dict[str, Any]) -> dict[str, tuple[Any, bool]]:
    return {
        f.target.id: (_evaluate(f.annotation, names), f.value is None)
        for f in dataclass.body
        if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)
    }


def _is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _evaluate(annotation: ast.expr | None, names: dict[str, Any]) -> Any:
    """The annotation as a type; `Any` where it needs names that only the target's own imports give."""
    if annotation is None:
        return Any
    try:
        return eval(compile(ast.Expression(annotation), "<annotation>", "eval"), {"__builtins__": {}}, names)
    except (NameError, AttributeError, TypeError):
        return Any
