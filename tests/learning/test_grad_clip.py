"""Clipping compared with torch's own, and with slow arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stylesim.core.errors import ConfigError
from stylesim.learning.grad_clip import clip_gradients


def parameters(*gradients: list[float]) -> list[nn.Parameter]:
    used = [nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(used, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return [*used, nn.Parameter(torch.zeros(2))]  # the last has no gradient


def norms(clipped: list[nn.Parameter]) -> list[float]:
    return [parameter.grad.norm().item() for parameter in clipped if parameter.grad is not None]


finite = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=4)


@given(gradients=st.lists(finite, min_size=1, max_size=4), max_norm=st.floats(0.1, 100))
def test_global_clipping_equals_that_of_torch(gradients, max_norm):
    clipped, by_torch = parameters(*gradients), parameters(*gradients)
    norm = clip_gradients(iter(clipped), max_norm)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(by_torch, max_norm))
    for parameter, expected in zip(clipped[:-1], by_torch[:-1], strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad)


@given(gradients=st.lists(finite, min_size=1, max_size=4), max_norm=st.floats(0.1, 100))
def test_per_tensor_clipping_treats_each_tensor_separately(gradients, max_norm):
    clipped = parameters(*gradients)
    norm = clip_gradients(clipped, max_norm, "per_tensor")
    assert norm.item() == pytest.approx(
        math.sqrt(sum(x * x for gradient in gradients for x in gradient)), rel=1e-4, abs=1e-6
    )
    for parameter, before in zip(clipped, gradients, strict=False):
        factor = max_norm / (math.sqrt(sum(x * x for x in before)) + 1e-6)
        expected = torch.tensor(before) * min(factor, 1.0)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


def test_global_and_per_tensor_clipping_differ():
    large, small = [30.0, 40.0], [0.3, 0.4]
    by_global_norm, per_tensor = parameters(large, small), parameters(large, small)
    clip_gradients(by_global_norm, 3.0)
    clip_gradients(per_tensor, 3.0, "per_tensor")
    assert norms(by_global_norm) == pytest.approx([50 * 3 / 50.0025, 0.5 * 3 / 50.0025], rel=1e-4)
    assert norms(per_tensor) == pytest.approx([3.0, 0.5])


@pytest.mark.parametrize("mode", ["global", "per_tensor"])
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_non_finite_norm_is_returned(mode, bad):
    assert not clip_gradients(parameters([1.0, bad], [1.0]), 3.0, mode).isfinite()


def test_an_infinite_limit_only_measures():
    measured = parameters([3.0, 4.0])
    assert clip_gradients(measured, math.inf).item() == pytest.approx(5)
    assert norms(measured) == [5.0]
    assert clip_gradients([], 1.0) == 0


def test_invalid_settings_are_refused():
    with pytest.raises(ConfigError, match=r"learning\.clip_norm must be a number above 0, or null to not clip, got 0"):
        clip_gradients(parameters([1.0]), 0)
    with pytest.raises(ConfigError, match="must be 'global' or 'per_tensor', got 'tensor'"):
        clip_gradients(parameters([1.0]), 1.0, "tensor")  # type: ignore[arg-type]
