"""Dividing a batch among weighted roots."""

from __future__ import annotations

import pytest

from stylesim.core.errors import ConfigError
from stylesim.data.sampling.batch_shares import split_batch


def test_shares_follow_the_weights_and_add_up_to_the_batch():
    assert split_batch(8, {"a": 3.0, "b": 1.0}) == [6, 2]
    assert split_batch(10, {"a": 1.0, "b": 1.0, "c": 1.0}) == [4, 3, 3]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1.0, "b": 0.0}, "must be positive"),
        ({"a": 1.0, "b": -1.0}, "must be positive"),
        ({"a": 99.0, "b": 1.0}, "less than one"),
    ],
)
def test_weights_that_give_no_image_are_refused(weights: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=message):
        split_batch(8, weights)
