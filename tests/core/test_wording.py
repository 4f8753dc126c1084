from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import PositiveInt

from stylesim.core.wording import describe_type, nearest_first, show_value, suggest


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "an integer"),
        (PositiveInt, "a positive integer"),
        (PositiveInt | None, "a positive integer or null"),
        (None | float, "a number or null"),
        (bool | str, "true, false or a string"),
        (Literal["bf16", "fp16"] | None, "bf16, fp16 or null"),
        (Path | str, "a path"),
        (Sequence[str], "a list of strings"),
        (tuple[float, float], "a list of 2 numbers"),
        (str | list[str], "a string or a list of strings"),
        (Mapping[str, Any], "a mapping"),
        (Any, "any value"),
    ],
)
def test_types_in_words(annotation: Any, text: str) -> None:
    assert describe_type(annotation) == text


def test_values_are_shown_as_yaml() -> None:
    assert show_value({"a": [1, None, True, "x"]}) == "{a: [1, null, true, 'x']}"


def test_suggestions_name_the_nearest_word_or_all() -> None:
    assert suggest("temprature", ["temperature", "weight"]) == " Did you mean 'temperature'?"
    assert suggest("xyz", ["b", "a"]) == " Known: a, b."
    assert nearest_first("csd_vitz", ["palette", "csd_vitl"]) == ["csd_vitl", "palette"]
