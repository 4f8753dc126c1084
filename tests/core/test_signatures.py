from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal

import pytest

from stylesim.core.errors import ConfigError
from stylesim.core.signatures import signature


@pytest.mark.parametrize(
    "target",
    [
        "stylesim.learning.optim.sgd",
        "stylesim.learning.style_module.StyleModule",
        "stylesim.data.modules.FolderDataModule",
        "stylesim.evaluation.retrieval_spec.RetrievalSpec",
        "stylesim.encoders.csd_factories.csd_clip",
    ],
)
def test_signature_from_source_matches_the_imported_object(target: str) -> None:
    module, _, name = target.rpartition(".")
    real = inspect.signature(getattr(import_module(module), name)).parameters
    read = signature(target)
    assert set(real) - {"options", "kwargs"} <= set(read)
    required = {k for k, p in real.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    assert {name for name, parameter in read.items() if parameter.required} >= required


def test_types_and_descriptions_are_read_and_types_of_heavy_modules_are_not() -> None:
    parameters = signature("stylesim.learning.optim.sgd")
    assert parameters["head_lr"].type is float
    assert parameters["schedule"].type == Literal["constant", "cosine"], "an alias of the module"
    assert parameters["encoder"].type is Any
    assert parameters["max_steps"].description
    assert signature("stylesim.evaluation.retrieval_spec.RetrievalSpec")["query"].type == Sequence[str]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("stylesim.learning.optim.sdg", "Did you mean 'sgd'?"),
        ("stylesim.learning.optimisers.sgd", "there is no module stylesim.learning.optimisers"),
    ],
)
def test_unknown_target_is_refused(target: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        signature(target)
    assert message in str(error.value)
