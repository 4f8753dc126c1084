"""The loss compared with slow loops and a calculation by hand, and the changes of its input that leave it unchanged."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stylesim.core.errors import ConfigError
from stylesim.learning import contrast
from stylesim.learning.losses import (
    CSDLoss,
    content_loss,
    contrastive_loss,
    csd_loss,
    instance_loss,
    reversal_strength,
)


def batch(seed: int, v: int = 2, n: int = 7, d: int = 5, t: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    views = normalize(torch.randn(v, n, d, generator=generator, dtype=torch.float64), dim=-1)
    tags = torch.rand(n, t, generator=generator) < 0.3
    tags[0] = False  # an anchor without a positive
    return views, tags


def published_formula(descriptors: Tensor, weights: list[list[float]], temperature: float) -> Tensor:
    """The formula of the published code, one scalar at a time."""
    n, total = len(descriptors), torch.zeros((), dtype=torch.float64)
    for i in range(n):
        z = [descriptors[i] @ descriptors[j] / temperature for j in range(n)]
        largest = max(float(logit) for logit in z)
        z = [logit - largest for logit in z]
        normaliser = torch.stack([z[k].exp() for k in range(n) if k != i]).sum().add(1e-6).log()
        weight = sum(weights[i][j] for j in range(n) if j != i) + 1e-6
        weighted = sum(weights[i][j] * (z[j] - normaliser) for j in range(n) if j != i)
        total = total - temperature * weighted / weight / n
    return total


def exact_formula(descriptors: Tensor, weights: list[list[float]], temperature: float) -> Tensor:
    """The mean over anchors of the mean over positives of -log p, one scalar at a time."""
    n, total = len(descriptors), torch.zeros((), dtype=torch.float64)
    for i in range(n):
        positives = [j for j in range(n) if j != i and weights[i][j] > 0]
        normaliser = sum((descriptors[i] @ descriptors[k] / temperature).exp() for k in range(n) if k != i)
        for j in positives:
            p = (descriptors[i] @ descriptors[j] / temperature).exp() / normaliser
            total = total - p.log() / len(positives) / n
    return total


def slow_csd(formula, views: Tensor, tags: Tensor, temperature: float, supervised: float, ssl: float) -> Tensor:
    v, n, d = views.shape
    shared = [[float(sum(a and b for a, b in zip(x, y, strict=True))) for y in tags.tolist()] for x in tags.tolist()]
    same = [[float(i % n == j % n) for j in range(v * n)] for i in range(v * n)]
    return supervised * formula(views[0], shared, temperature) + ssl * formula(
        views.reshape(v * n, d), same, temperature
    )


@pytest.mark.parametrize(("reference", "formula"), [(False, exact_formula), (True, published_formula)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_value_and_gradient_equal_those_of_slow_loops(reference, formula, dtype, temperature):
    views, tags = batch(seed=1)
    expected_leaf = views.clone().requires_grad_()
    expected = slow_csd(formula, expected_leaf, tags, temperature, 5.0, 1.0)
    (expected_gradient,) = torch.autograd.grad(expected, expected_leaf)
    leaf = views.to(dtype).requires_grad_()
    total, parts = csd_loss(leaf, tags, temperature, 5.0, 1.0, reference)
    (gradient,) = torch.autograd.grad(total, leaf)
    assert total.dtype == dtype
    torch.testing.assert_close(total.double(), expected.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(total, 5 * parts["supervised"] + parts["ssl"])
    assert not parts["ssl"].requires_grad


def test_three_views_are_positives_of_each_other():
    views, _ = batch(seed=2, v=3, n=4)
    same = [[float(i % 4 == j % 4) for j in range(12)] for i in range(12)]
    for reference, formula in [(False, exact_formula), (True, published_formula)]:
        expected = formula(views.reshape(12, -1), same, 0.1)
        torch.testing.assert_close(instance_loss(views, 0.1, reference), expected)


def test_the_reversed_gradient_of_the_content_loss_reaches_the_backbone_only():
    class Reversal(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, *gradients):
            return -reversal_strength(0.5) * gradients[0]

    images, head = torch.randn(2, 4, 3), torch.randn(3, 2)

    def gradients(reverse) -> tuple[Tensor, ...]:
        features, matrix = images.clone().requires_grad_(), head.clone().requires_grad_()
        loss = content_loss(normalize(reverse(features) @ matrix, dim=-1))
        return torch.autograd.grad(loss, (features, matrix))

    direct, reversed_ = gradients(lambda x: x), gradients(Reversal.apply)
    torch.testing.assert_close(reversed_[0], -reversal_strength(0.5) * direct[0])
    torch.testing.assert_close(reversed_[1], direct[1])


def test_the_loss_of_three_images_calculated_by_hand():
    # a and b are equal and share a tag; c is orthogonal to both and shares none. At temperature 1,
    # p(a, b) = p(b, a) = e / (e + 1); c has no positive and counts as 0.
    views = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    tags = torch.tensor([[True, False], [True, False], [False, True]])
    total, parts = csd_loss(views, tags, 1.0, 3.0, ssl_weight=0)
    assert total.item() == pytest.approx(2 * math.log(1 + math.exp(-1)))
    assert parts["anchors_with_positive"].item() == pytest.approx(2 / 3)
    assert "ssl" not in parts
    # The reference subtracts the self-similarity, so log p = 0 - log(1 + 1/e + 1e-6); the weights sum to 1 + 1e-6.
    reference, _ = csd_loss(views, tags, 1.0, 3.0, ssl_weight=0, reference=True)
    assert reference.item() == pytest.approx(2 * math.log(1 + math.exp(-1) + 1e-6) / (1 + 1e-6))


@pytest.mark.parametrize("reference", [False, True])
def test_gradcheck(reference):
    views, tags = batch(seed=3, n=4, d=3)
    if reference:  # its gradient is exact only where the epsilon is negligible, because the maximum is detached
        views = normalize(views + 2, dim=-1)
    total = lambda v: csd_loss(v, tags, 0.5, 2.0, 1.0, reference)[0]  # noqa: E731
    assert torch.autograd.gradcheck(total, views.requires_grad_(), atol=1e-5)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), reference=st.booleans(), cut=st.integers(0, 7), chunk=st.integers(1, 60))
def test_shares_of_anchors_add_up_for_any_chunk_size(seed, reference, cut, chunk):
    views, tags = batch(seed)
    leaf = views.clone().requires_grad_()

    def loss(anchors: slice) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        total, parts = csd_loss(leaf, tags, 0.1, 5.0, 1.0, reference, anchors)
        return total.detach(), parts, torch.autograd.grad(total, leaf)[0]

    whole = loss(slice(None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast, "PAIRS_PER_CHUNK", chunk)
        first, rest = loss(slice(0, cut)), loss(slice(cut, len(tags)))
    torch.testing.assert_close(first[0] + rest[0], whole[0])
    torch.testing.assert_close({name: first[1][name] + rest[1][name] for name in first[1]}, whole[1])
    torch.testing.assert_close(first[2] + rest[2], whole[2])


@pytest.mark.parametrize("reference", [False, True])
def test_no_tensor_grows_with_the_square_of_the_batch(reference, monkeypatch):
    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            sizes = [part.numel() for part in tree_leaves(result) if isinstance(part, Tensor)]
            self.elements = max(self.elements, *sizes, 0)
            return result

    monkeypatch.setattr(contrast, "PAIRS_PER_CHUNK", 3000)
    views, tags = batch(seed=9, n=500)
    with Largest() as largest:
        total, _ = csd_loss(views.requires_grad_(), tags, 0.1, 5.0, 1.0, reference)
        total.backward()
    assert largest.elements == max(views.numel(), tags.numel()) == 5000 > 3000


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), reference=st.booleans())
def test_order_rotation_and_unshared_tags_do_not_change_the_loss(seed, reference):
    views, tags = batch(seed)

    def loss(views: Tensor, tags: Tensor) -> Tensor:
        return csd_loss(views, tags, 0.1, 5.0, 1.0, reference)[0]

    expected = loss(views, tags)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(tags), generator=generator)
    torch.testing.assert_close(loss(views[:, order], tags[order]), expected)
    columns = torch.randperm(tags.shape[1], generator=generator)
    torch.testing.assert_close(loss(views, tags[:, columns]), expected)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    torch.testing.assert_close(loss(views @ rotation, tags), expected)
    unshared = torch.zeros(len(tags), 1, dtype=torch.bool)
    unshared[0] = True
    torch.testing.assert_close(loss(views, torch.cat([tags, unshared], dim=1)), expected)


def test_the_number_of_shared_tags_counts_in_the_reference_only():
    views, tags = batch(seed=4, n=4, t=2)
    tags[:] = torch.tensor([[True, False], [True, True], [False, True], [True, True]])
    twice = torch.cat([tags, tags[:, :1]], dim=1)
    for reference, equal in [(False, True), (True, False)]:
        once, doubled = (contrastive_loss(views[0], labels, 0.1, reference) for labels in (tags, twice))
        assert torch.allclose(once, doubled, atol=1e-6) is equal


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("temperature", [1e-4, 1e4])
@pytest.mark.parametrize(("v", "n", "t"), [(2, 0, 3), (2, 1, 3), (1, 1, 3), (1, 4, 3), (2, 4, 0), (2, 6, 3)])
def test_edge_cases_have_finite_gradients(reference, temperature, v, n, t):
    views, tags = (tensor[..., :] for tensor in batch(seed=5, v=v, n=max(n, 1), t=t))
    leaf = views[:, :n].float().requires_grad_()
    total, parts = csd_loss(leaf, tags[:n], temperature, 5.0, 1.0, reference)
    (gradient,) = torch.autograd.grad(total, leaf)
    assert total.isfinite()
    assert gradient.isfinite().all()
    assert all(part.isfinite() for part in parts.values())
    if n * v <= 1:
        assert total == 0


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_descriptors_are_compared_in_float32(dtype, reference):
    views, tags = batch(seed=6)
    half = views.to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        total, _ = csd_loss(half.requires_grad_(), tags, 0.1, 5.0, 1.0, reference)
    expected, _ = csd_loss(half.float(), tags, 0.1, 5.0, 1.0, reference)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, expected)
    total.backward()


def test_a_term_with_weight_zero_is_left_out():
    views, tags = batch(seed=7)
    supervised, parts = csd_loss(views, tags, 0.1, 2.0, 0.0)
    assert set(parts) == {"supervised", "anchors_with_positive"}
    ssl, parts = csd_loss(views, tags, 0.1, 0.0, 3.0)
    assert set(parts) == {"ssl"}
    torch.testing.assert_close(supervised + ssl, csd_loss(views, tags, 0.1, 2.0, 3.0)[0])


@pytest.mark.parametrize(
    ("temperature", "weights", "message"),
    [
        (0.0, (1, 1), "temperature must be above 0, got 0.0"),
        (0.1, (0, 0), "one of them above 0, got 0 and 0"),
        (0.1, (-1, 1), "must be 0 or more, and one of them above 0, got -1 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(temperature, weights, message):
    views, tags = batch(seed=8)
    with pytest.raises(ConfigError, match=message):
        csd_loss(views, tags, temperature, *weights)
    with pytest.raises(ConfigError, match=message):
        CSDLoss(temperature=temperature, supervised_weight=weights[0], ssl_weight=weights[1])


@pytest.mark.parametrize("reference", [False, True])
def test_the_loss_object_computes_the_pure_functions(reference):
    views, tags = batch(seed=10)
    content, _ = batch(seed=11)
    anchors = slice(1, 5)
    loss = CSDLoss(temperature=0.2, supervised_weight=3.0, ssl_weight=0.5, content_weight=0.7, reference=reference)
    total, parts = loss(views, tags, anchors=anchors, content=content)
    style, expected = csd_loss(views, tags, 0.2, 3.0, 0.5, reference, anchors)
    expected["content"] = content_loss(content, 0.2, reference, anchors)
    assert torch.equal(total, style + 0.7 * expected["content"])
    assert parts.keys() == expected.keys()
    assert all(torch.equal(parts[name], expected[name]) for name in parts)
    assert "content_weight=0.7" in repr(loss)


def test_a_content_term_needs_content_descriptors():
    views, tags = batch(seed=10)
    without, parts = CSDLoss()(views, tags, content=views)
    assert "content" not in parts
    assert torch.equal(without, CSDLoss()(views, tags)[0])
    with pytest.raises(ConfigError, match="needs content descriptors, got None"):
        CSDLoss(content_weight=0.5)(views, tags)
    with pytest.raises(ConfigError, match=r"loss\.content_weight must be 0 or more, got -1"):
        CSDLoss(content_weight=-1.0)


def test_reversal_strength_grows_from_zero_to_one():
    strengths = [reversal_strength(step / 10) for step in range(11)]
    assert strengths[0] == 0
    assert strengths == sorted(strengths)
    assert strengths[5] == pytest.approx(math.tanh(2.5))
    assert 0.999 < strengths[-1] < 1
