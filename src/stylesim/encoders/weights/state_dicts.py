"""Find the state dict inside a checkpoint, and remove the prefixes of wrapper modules from its keys."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stylesim.core.errors import WeightsError

logger = logging.getLogger(__name__)

State = dict[str, Tensor]

_INSERTED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of a key that torch.compile, FSDP and activation checkpointing insert, at any depth."""
_OUTERMOST = ("module", "model")
"""First parts of all keys if a module was saved inside DataParallel, DDP, AveragedModel, or a module around it."""
_MAX_DEPTH = 5


def find_state_dict(content: Mapping[Any, Any], path: Path) -> State:
    """Return the only state dict in a checkpoint, however deep and under whatever name, without wrapper prefixes.

    What was unwrapped is logged.

    Args:
        content: The checkpoint: a state dict, or mappings that contain one beside optimisers, counters and settings.
        path: The file, for messages.

    Raises:
        WeightsError: If there is no tensor, if there are several state dicts (such as a model and its EMA), or if two
            keys are the same without their prefixes.
    """
    found = {id(state): (name, state) for name, state in _candidates(content) if _has_weights(state, floating=True)}
    found = found or {id(state): (name, state) for name, state in _candidates(content) if _has_weights(state)}
    if not found:
        only = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise WeightsError(f"{path} contains no tensors, only {only}.")
    if len(found) > 1:
        listed = ", ".join(f"{name or 'the top level'} ({len(state)} entries)" for name, state in found.values())
        raise WeightsError(
            f"{path} contains several state dicts, and it is not clear which one is meant: {listed}. Save the one that "
            f"you want in a file of its own, for example torch.save(torch.load(path)[NAME], new_path)."
        )
    ((name, state),) = found.values()
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    stripped, prefixes = strip_prefixes(tensors, path)
    if name or prefixes:
        where = f" in its entry {name}" if name else ""
        without = f", without the prefix {' and '.join(prefixes)} of their keys" if prefixes else ""
        logger.info("%s: took the weights%s%s.", path, where, without)
    return stripped


def strip_prefixes(state: State, path: Path) -> tuple[State, list[str]]:
    """Return a state dict without the prefixes that wrapper modules add, and a list of these prefixes.

    Raises:
        WeightsError: If two keys would become the same.
    """
    prefixes = [part for part in _INSERTED if any(part in key.split(".") for key in state)]
    state = _rename(state, lambda key: ".".join(part for part in key.split(".") if part not in _INSERTED), path)
    while prefix := next((part for part in _OUTERMOST if _wraps(part, state)), None):
        prefixes.append(prefix)
        state.pop("n_averaged", None)  # AveragedModel's counter, beside the module
        state = _rename(state, lambda key, start=f"{prefix}.": key.removeprefix(start), path)
    return state, prefixes


def _wraps(prefix: str, state: State) -> bool:
    """Return whether a prefix is that of a wrapper. DDP around a part of a model leaves the other keys as they are."""
    wrapped = [key.startswith(f"{prefix}.") for key in state if key != "n_averaged"]
    return any(wrapped) if prefix == "module" else bool(wrapped) and all(wrapped)


def _rename(state: State, new_name: Callable[[str], str], path: Path) -> State:
    origins: dict[str, str] = {}
    for key in state:
        other = origins.setdefault(new_name(key), key)
        if other != key:
            raise WeightsError(
                f"{path} contains both {other} and {key}, which are the same tensor of a wrapped and of a bare module; "
                f"it is not clear which one is meant. Save the state dict of one of them."
            )
    return {new: state[old] for new, old in origins.items()}


def _candidates(content: Mapping[Any, Any], name: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield all mappings whose keys are text, each with its path in the checkpoint; optimisers are left out."""
    if {"state", "param_groups"} <= content.keys() or not all(isinstance(key, str) for key in content):
        return
    yield name, content
    if depth < _MAX_DEPTH:
        for key, value in content.items():
            if isinstance(value, Mapping):
                yield from _candidates(value, f"{name}.{key}" if name else key, depth + 1)


def _has_weights(state: Mapping[Any, Any], floating: bool = False) -> bool:
    """Return whether a mapping holds tensors of at least one dimension; `floating` ignores those of integers."""
    tensors = (value for value in state.values() if isinstance(value, Tensor) and value.ndim)
    return any(not floating or value.is_floating_point() for value in tensors)
