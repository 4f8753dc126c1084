"""Record in an encoder which factory built it with which arguments, so that its checkpoint is self-contained."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from stylesim.encoders.style_encoder import StyleEncoder

Arguments = ParamSpec("Arguments")
Built = TypeVar("Built", bound=StyleEncoder)


def rebuildable(factory: Callable[Arguments, Built]) -> Callable[Arguments, Built]:
    """Decorate a factory to record its `_target_` and all arguments in the encoder's `config`, as Hydra writes them.

    A factory that resolves an argument (the activation that a weight file states) puts its value into `config` itself.
    The key `_card_` of a configuration in conf/model (see `stylesim.encoders.catalogue`) is ignored.
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def build(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Built:
        kwargs.pop("_card_", None)  # Hydra passes on what a configuration states for `list_models`
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        encoder = factory(*args, **kwargs)
        arguments = {name: plain(value) for name, value in bound.arguments.items()}
        target = f"{factory.__module__}.{factory.__qualname__}"
        encoder.config = {"_target_": target, **arguments, **(encoder.config or {})}
        return encoder

    build.builds_encoder = True  # type: ignore[attr-defined]  a checkpoint may name it as its model
    return build


def plain(value: object) -> object:
    """Convert mappings, sequences and paths (OmegaConf's included) to dicts, lists and strings that JSON can write."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}  # type: ignore[attr-defined]
    if hasattr(value, "__iter__"):
        return [plain(item) for item in value]  # type: ignore[attr-defined]
    return str(value)
