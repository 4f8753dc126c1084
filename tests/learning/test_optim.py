"""Parameter groups, learning rates and schedules of the optimisers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stylesim.core.errors import ConfigError
from stylesim.learning.optim import adamw, sgd


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
        self.style_head = nn.Parameter(torch.ones(3, 2))

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        backbone = [(f"backbone.{name}", p) for name, p in self.backbone.named_parameters()]
        return {"backbone": backbone, "head": [("style_head", self.style_head)]}


def named_groups(optimizer: torch.optim.Optimizer) -> dict[str, dict]:
    return {group["name"]: group for group in optimizer.param_groups}


def rates(steps: int, **recipe) -> list[float]:
    """Return the learning rate of the head at each step."""
    optimizer, scheduler = sgd(Encoder(), global_batch=256, head_lr=1.0, **recipe)
    by_step = []
    for _ in range(steps):
        by_step.append(named_groups(optimizer)["head"]["lr"])
        optimizer.step()
        scheduler.step()
    return by_step


def test_learning_rates_of_the_paper():
    optimizer, _ = sgd(Encoder(), global_batch=16 * 4, max_steps=80_000)
    groups = named_groups(optimizer)
    assert groups["head"]["lr"] == pytest.approx(7.5e-4)
    assert groups["backbone"]["lr"] == groups["backbone_no_decay"]["lr"] == pytest.approx(2.5e-5)
    assert all(group["momentum"] == 0.9 for group in groups.values())


def test_only_backbone_matrices_decay():
    encoder = Encoder()
    groups = named_groups(sgd(encoder, global_batch=64, max_steps=10)[0])
    assert [p.shape for p in groups["backbone"]["params"]] == [(3, 4)]
    assert [p.shape for p in groups["backbone_no_decay"]["params"]] == [(3,), (3,), (3,)]
    assert groups["head"]["params"] == [encoder.style_head]
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "backbone": 1e-4,
        "backbone_no_decay": 0,
        "head": 0,
    }


def test_frozen_parameters_are_not_optimised():
    encoder = Encoder()
    encoder.backbone.requires_grad_(False)
    optimizer, _ = sgd(encoder, global_batch=64, max_steps=10)
    assert list(named_groups(optimizer)) == ["head"]
    encoder.style_head.requires_grad_(False)
    with pytest.raises(ConfigError, match="no trainable parameters"):
        sgd(encoder, global_batch=64, max_steps=10)


def test_adamw_has_the_same_groups():
    encoder = Encoder()
    optimizer, _ = adamw(encoder, global_batch=128, max_steps=10, head_lr=2e-3, backbone_lr=1e-3)
    groups = named_groups(optimizer)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (groups["head"]["lr"], groups["backbone"]["lr"]) == (1e-3, 5e-4)
    assert (groups["head"]["weight_decay"], groups["backbone"]["weight_decay"]) == (0, 0.05)
    assert sorted(groups) == sorted(named_groups(sgd(encoder, global_batch=128, max_steps=10)[0]))


def test_warm_up_then_constant():
    assert rates(8, max_steps=8, warmup_steps=4) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1])


def test_warm_up_then_cosine():
    assert rates(7, max_steps=6, warmup_steps=2, schedule="cosine") == pytest.approx(
        [0, 0.5, 1, 0.853553, 0.5, 0.146447, 0], abs=1e-6
    )


def test_a_resumed_schedule_continues_where_it_stopped():
    uninterrupted = rates(6, max_steps=6, warmup_steps=3, schedule="cosine")

    def build():
        return sgd(Encoder(), global_batch=256, head_lr=1.0, max_steps=6, warmup_steps=3, schedule="cosine")

    optimizer, scheduler = build()
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    resumed, resumed_scheduler = build()
    resumed.load_state_dict(optimizer.state_dict())
    resumed_scheduler.load_state_dict(scheduler.state_dict())
    assert named_groups(resumed)["head"]["lr"] == uninterrupted[4]
    resumed.step()
    resumed_scheduler.step()
    assert named_groups(resumed)["head"]["lr"] == uninterrupted[5]


def test_invalid_schedules_are_refused():
    with pytest.raises(ConfigError, match=r"must not exceed trainer\.max_steps, got 30000 and 100"):
        sgd(Encoder(), global_batch=64, max_steps=100, warmup_steps=30_000)
    with pytest.raises(ConfigError, match="must be 'constant' or 'cosine', got 'linear'"):
        sgd(Encoder(), global_batch=64, max_steps=100, schedule="linear")  # type: ignore[arg-type]
