from __future__ import annotations

import pytest
import torch
from torch import nn

from stylesim.core.errors import StylesimError
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
    """The head's learning rate at each step."""
    optimizer, scheduler = sgd(Encoder(), global_batch=256, head_lr=1.0, **recipe)
    found = []
    for _ in range(steps):
        found.append(named_groups(optimizer)["head"]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_the_papers_rates():
    optimizer, _ = sgd(Encoder(), global_batch=16 * 4, max_steps=80_000)
    groups = named_groups(optimizer)
    assert groups["head"]["lr"] == pytest.approx(7.5e-4)
    assert groups["backbone"]["lr"] == groups["backbone_no_decay"]["lr"] == pytest.approx(2.5e-5)
    assert all(group["momentum"] == 0.9 for group in groups.values())


def test_only_the_backbones_matrices_decay():
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


def test_frozen_parameters_stay_out():
    encoder = Encoder()
    encoder.backbone.requires_grad_(False)
    optimizer, _ = sgd(encoder, global_batch=64, max_steps=10)
    assert list(named_groups(optimizer)) == ["head"]
    encoder.style_head.requires_grad_(False)
    with pytest.raises(StylesimError, match="no trainable parameters"):
        sgd(encoder, global_batch=64, max_steps=10)


def test_adamw_has_the_same_groups():
    encoder = Encoder()
    ours, _ = adamw(encoder, global_batch=128, max_steps=10, head_lr=2e-3, backbone_lr=1e-3)
    groups = named_groups(ours)
    assert isinstance(ours, torch.optim.AdamW)
    assert (groups["head"]["lr"], groups["backbone"]["lr"]) == (1e-3, 5e-4)
    assert (groups["head"]["weight_decay"], groups["backbone"]["weight_decay"]) == (0, 0.05)
    assert sorted(groups) == sorted(named_groups(sgd(encoder, global_batch=128, max_steps=10)[0]))


def test_warm_up_then_constant():
    found = rates(8, max_steps=8, warmup_steps=4)
    assert found == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1])


def test_warm_up_then_cosine():
    found = rates(7, max_steps=6, warmup_steps=2, schedule="cosine")
    assert found == pytest.approx([0, 0.5, 1, 0.853553, 0.5, 0.146447, 0], abs=1e-6)


def test_a_resumed_schedule_goes_on_where_it_stopped():
    whole = rates(6, max_steps=6, warmup_steps=3, schedule="cosine")

    def build():
        return sgd(Encoder(), global_batch=256, head_lr=1.0, max_steps=6, warmup_steps=3, schedule="cosine")

    optimizer, scheduler = build()
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    resumed, again = build()
    resumed.load_state_dict(optimizer.state_dict())
    again.load_state_dict(scheduler.state_dict())
    assert named_groups(resumed)["head"]["lr"] == whole[4]
    resumed.step()
    again.step()
    assert named_groups(resumed)["head"]["lr"] == whole[5]


def test_schedules_that_lead_nowhere_are_refused():
    with pytest.raises(StylesimError, match="warm-up takes 30000 steps and the run only 100"):
        sgd(Encoder(), global_batch=64, max_steps=100, warmup_steps=30_000)
    with pytest.raises(StylesimError, match="'constant' or 'cosine'"):
        sgd(Encoder(), global_batch=64, max_steps=100, schedule="linear")  # type: ignore[arg-type]
