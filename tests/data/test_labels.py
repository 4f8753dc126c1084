"""Labels as people write them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stylesim.data.labels import cell_text, clean_label, clean_labels, split_tags


@pytest.mark.parametrize(
    ("cell", "tags"),
    [
        ("a|b; c", ["a", "b", "c"]),
        ("", []),
        (None, []),
        (float("nan"), []),
        (pd.NA, []),
        (pd.NaT, []),
        ("<NA>", []),
        ("a|nan", ["a"]),
        (["a; b"], ["a; b"]),
        (["a", None, float("nan"), pd.NA, " a "], ["a"]),
        (["None"], ["None"]),  # a list would hold None itself
        (np.array(["a", "b"], dtype=object), ["a", "b"]),
        (3, ["3"]),
        (3.0, ["3"]),
        (np.float32(2), ["2"]),
        (2.5, ["2.5"]),
        (b"ab", ["ab"]),
        (True, ["True"]),
    ],
)
def test_the_tags_of_a_cell(cell: object, tags: list[str]) -> None:
    assert split_tags(cell) == tags


def test_spellings_of_one_label_are_equal() -> None:
    assert clean_label("Ce\u0301zanne") == clean_label("\u00a0C\u00e9zanne ") == "C\u00e9zanne"
    assert clean_labels(["a", " a", "", "e\u0301", "\u00e9"]) == ["a", "\u00e9"]


def test_a_label_can_always_be_written() -> None:
    assert clean_label("\udce9 and \ud800").encode() == rb"\udce9 and \ud800"


def test_a_whole_number_has_no_decimals() -> None:
    assert [cell_text(cell) for cell in (1, 1.0, 1.5, float("inf"), None, "1.0")] == ["1", "1", "1.5", "inf", "", "1.0"]
