"""Runs that are resumed with other processes, workers or accumulation than they were begun with."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from corpus import write_root
from omegaconf import DictConfig

from stylesim import train
from stylesim.core.errors import StylesimError
from stylesim.data.modules import ShardDataModule
from stylesim.data.views import TwoViews


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_root(tmp_path_factory.mktemp("position") / "train", 40, size=7))


def entered(
    root: str,
    step: int = 0,
    world: int = 1,
    accumulation: int = 1,
    done: int | None = None,
    state: Any = None,
    **options: Any,
) -> ShardDataModule:
    """A data module whose loader a trainer at `step` has asked for, as the state of a checkpoint says."""
    usual = {"batch_size": 4, "workers": 0, "shuffle_buffer": 6, "views": TwoViews(8)}
    module = ShardDataModule(root, **usual | options)
    progress = SimpleNamespace(current=SimpleNamespace(ready=step * accumulation if done is None else done))
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_step=step,
        accumulate_grad_batches=accumulation,
        max_steps=20,
        world_size=world,
        global_rank=0,
        is_global_zero=True,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
    )
    if state:
        module.load_state_dict(state)
    module.train_dataloader()
    return module


def test_the_same_run_continues_at_its_position(root: str, caplog: pytest.LogCaptureFixture) -> None:
    state = entered(root, accumulation=2).state_dict()
    module = entered(root, step=3, accumulation=2, state=state)
    assert module.loader.stream.start == 6
    assert len(module.loader) == 40
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("options", "start", "changed"),
    [
        # Epochs of 10 micro-batches, then of 5: after 13 of them the third begins.
        ({"world": 2}, 10, "processes 1 -> 2"),
        ({"workers": 2}, 20, "workers 1 -> 2"),
        ({"batch_size": 2}, 40, "batch_size [4] -> [2]"),
        ({"seed": 1}, 20, "seed 0 -> 1"),
    ],
)
def test_with_other_readers_a_run_continues_with_the_next_epoch_and_says_so(
    options: dict[str, int], start: int, changed: str, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = entered(root).state_dict()
    module = entered(root, step=13, state=state, **options)
    assert module.loader.stream.start == start
    assert start % module.planned_sources(options.get("world", 1))[0].plan.steps == 0
    assert len(module.loader) == 20, "the trainer counts its batches as before"
    [message] = caplog.messages
    assert "begins epoch 3, and 7 micro-batches of the previous one are left out" in message
    assert changed in message


def test_balanced_batches_have_another_order_with_other_tags(root: str, caplog: pytest.LogCaptureFixture) -> None:
    state = entered(root, balance="2x2").state_dict()
    entered(root, step=13, state=state, balance="2x2")
    assert caplog.messages == []
    entered(root, step=13, state=state, balance="2x2", tags=["set:0", "set:1"])
    assert "since the run was saved (tags " in caplog.text


def test_a_run_that_was_moved_to_the_next_epoch_is_resumed_exactly_from_there(
    root: str, caplog: pytest.LogCaptureFixture
) -> None:
    moved = entered(root, step=13, world=2, state=entered(root).state_dict())
    caplog.clear()
    again = entered(root, step=16, world=2, state=moved.state_dict())
    assert again.loader.stream.start == 13
    assert caplog.messages == []


def test_another_accumulation_keeps_the_position(root: str, caplog: pytest.LogCaptureFixture) -> None:
    state = entered(root, accumulation=2).state_dict()
    module = entered(root, step=3, accumulation=1, done=6, state=state)
    assert module.loader.stream.start == 6
    assert len(module.loader) == 6 + 17
    assert entered(root, step=5, accumulation=1, done=8, state=module.state_dict()).loader.stream.start == 8
    assert caplog.messages == []


def test_an_accumulation_that_would_split_a_step_is_refused(root: str) -> None:
    state = entered(root, accumulation=2).state_dict()
    with pytest.raises(StylesimError, match="must divide the 6 micro-batches that the resumed run has done, got 4"):
        entered(root, step=3, accumulation=4, done=6, state=state)


@pytest.mark.slow
def test_a_real_run_is_resumed_with_other_workers_and_accumulation_to_its_last_step(
    composed: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture
) -> None:
    quiet = "data.probes.validation.every_n_steps=null"
    train.main(
        composed(
            quiet, "callbacks.checkpoints.monitor=null", "trainer.accumulate_grad_batches=2", "trainer.max_steps=3"
        )
    )
    cfg = composed(quiet, "callbacks.checkpoints.monitor=null", "trainer.max_steps=8", "data.workers=2", "resume=true")
    train.main(cfg)
    assert "workers 1 -> 2" in caplog.text
    rows = csv.DictReader((Path(cfg.run_dir) / "metrics.csv").open())
    assert [int(row["step"]) for row in rows if row["train/loss"]] == list(range(8))
