from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stylesim.core.errors import StylesimError
from stylesim.learning.grad_clip import clip_gradients


def parameters(*gradients: list[float]) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return [*made, nn.Parameter(torch.zeros(2))]  # the last was not used in the step


def norms(clipped: list[nn.Parameter]) -> list[float]:
    return [parameter.grad.norm().item() for parameter in clipped if parameter.grad is not None]


finite = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=4)


@given(gradients=st.lists(finite, min_size=1, max_size=4), max_norm=st.floats(0.1, 100))
def test_global_clipping_is_torchs(gradients, max_norm):
    ours, theirs = parameters(*gradients), parameters(*gradients)
    norm = clip_gradients(iter(ours), max_norm)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(theirs, max_norm))
    for mine, other in zip(ours[:-1], theirs[:-1], strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


@given(gradients=st.lists(finite, min_size=1, max_size=4), max_norm=st.floats(0.1, 100))
def test_per_tensor_clipping_looks_at_each_tensor_alone(gradients, max_norm):
    clipped = parameters(*gradients)
    norm = clip_gradients(clipped, max_norm, "per_tensor")
    assert norm.item() == pytest.approx(math.sqrt(sum(x * x for one in gradients for x in one)), rel=1e-4, abs=1e-6)
    for parameter, before in zip(clipped, gradients, strict=False):
        factor = max_norm / (math.sqrt(sum(x * x for x in before)) + 1e-6)
        expected = torch.tensor(before) * min(factor, 1.0)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


def test_the_two_modes_differ_as_the_published_code_does():
    large, small = [30.0, 40.0], [0.3, 0.4]
    together, apart = parameters(large, small), parameters(large, small)
    clip_gradients(together, 3.0)
    clip_gradients(apart, 3.0, "per_tensor")
    assert norms(together) == pytest.approx([50 * 3 / 50.0025, 0.5 * 3 / 50.0025], rel=1e-4)
    assert norms(apart) == pytest.approx([3.0, 0.5])


@pytest.mark.parametrize("mode", ["global", "per_tensor"])
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_norm_that_is_not_finite_is_reported(mode, bad):
    assert not clip_gradients(parameters([1.0, bad], [1.0]), 3.0, mode).isfinite()


def test_an_infinite_limit_measures_only():
    measured = parameters([3.0, 4.0])
    assert clip_gradients(measured, math.inf).item() == pytest.approx(5)
    assert norms(measured) == [5.0]
    assert clip_gradients([], 1.0) == 0


def test_settings_without_a_meaning_are_refused():
    with pytest.raises(StylesimError, match="norm of 0"):
        clip_gradients(parameters([1.0]), 0)
    with pytest.raises(StylesimError, match="'per_tensor'"):
        clip_gradients(parameters([1.0]), 1.0, "tensor")  # type: ignore[arg-type]
