"""The CSD encoder: heads, parameter groups, and behaviour during training."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stylesim.core.errors import ConfigError
from stylesim.encoders.csd_encoder import CSDEncoder, semi_orthogonal
from stylesim.encoders.csd_factories import csd_clip, csd_lite0, csd_timm
from stylesim.encoders.gradient_reversal import reverse_gradient
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance


def tiny(content_head: bool = False) -> CSDEncoder:
    return csd_clip(architecture="ViT-test", weights="random", image_size=32, content_head=content_head)


def test_heads_are_initialised_as_separate_copies_of_proj():
    encoder = tiny(content_head=True)
    assert encoder.content_head is not None
    assert encoder.style_head.shape == (64, 32)
    assert torch.equal(encoder.style_head, encoder.content_head)
    assert encoder.style_head.data_ptr() != encoder.content_head.data_ptr()
    assert not encoder.provenance.trained_head


@pytest.mark.parametrize(("features", "dim"), [(384, 128), (128, 384)])
def test_random_heads_are_semi_orthogonal(features: int, dim: int):
    head = semi_orthogonal(features, dim)
    small = head.T @ head if dim < features else head @ head.T
    torch.testing.assert_close(small, torch.eye(min(features, dim)), atol=1e-5, rtol=0)


def test_gradient_reversal_is_the_identity_and_multiplies_gradients_by_minus_alpha():
    x = torch.randn(4, 5, requires_grad=True)
    weights = torch.randn(4, 5)
    y = reverse_gradient(x, 0.3)
    assert torch.equal(y, x)
    (y * weights).sum().backward()
    torch.testing.assert_close(x.grad, -0.3 * weights)


def test_content_head_gradient_is_reversed_in_the_backbone():
    encoder, images = tiny(content_head=True), torch.randn(3, 3, 32, 32)
    target = torch.randn(3, 32)

    def gradients(alpha: float) -> dict[str, torch.Tensor]:
        encoder.zero_grad()
        content = encoder.heads(images, alpha=alpha)[1]
        assert content is not None
        (content * target).sum().backward()
        return {k: p.grad.clone() for k, p in encoder.named_parameters() if p.grad is not None}

    plain, reversed_, none = gradients(-1.0), gradients(0.5), gradients(0.0)
    assert "style_head" not in plain
    torch.testing.assert_close(reversed_["content_head"], plain["content_head"])
    for name in plain.keys() - {"content_head"}:
        torch.testing.assert_close(reversed_[name], -0.5 * plain[name])
        assert not none[name].any()


def test_heads_return_no_content_without_a_content_head():
    images = torch.randn(2, 3, 32, 32)
    encoder = tiny()
    style, content = encoder.heads(images)
    assert content is None
    torch.testing.assert_close(style, encoder(images))
    torch.testing.assert_close(style, F.normalize(encoder.features(images) @ encoder.style_head, dim=-1))


def test_parameter_groups_contain_each_trainable_parameter_once():
    encoder = tiny(content_head=True)
    groups = encoder.parameter_groups()
    assert [name for name, _ in groups["head"]] == ["style_head", "content_head"]
    assert sorted(name for group in groups.values() for name, _ in group) == sorted(dict(encoder.named_parameters()))
    encoder.backbone.requires_grad_(False)
    assert encoder.parameter_groups()["backbone"] == []


class Noisy(nn.Module):
    """Batch norm and dropout, which behave differently in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(images)).mean(dim=(2, 3))


def test_training_mode_keeps_the_backbone_in_evaluation_mode():
    encoder = CSDEncoder(Noisy(), torch.eye(3), None, Preprocessing(8), Provenance("noisy", "none"))
    images = torch.randn(4, 3, 8, 8) + 3
    before = encoder.eval()(images)
    state = {k: v.clone() for k, v in encoder.state_dict().items()}
    assert torch.equal(encoder.train()(images), before)
    assert encoder.training
    assert all(torch.equal(v, state[k]) for k, v in encoder.state_dict().items())
    assert encoder.backbone.get_parameter("norm.weight").requires_grad
    with pytest.raises(ConfigError, match="does not support gradient checkpointing"):
        encoder.set_grad_checkpointing(True)


@pytest.mark.parametrize(
    "build", [tiny, lambda: csd_timm(name="resnet18", weights="random", image_size=32, dim=16), csd_lite0]
)
def test_gradient_checkpointing_does_not_change_gradients(build):
    encoder = build().train()
    size = encoder.preprocessing.size
    images, target = torch.randn(2, 3, size, size), torch.randn(2, encoder.dim)
    gradients = []
    for enable in (False, True):
        encoder.set_grad_checkpointing(enable)
        encoder.zero_grad()
        (encoder(images) * target).sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)
