from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from stylesim.core.conf import conf_dir
from stylesim.core.errors import ConfigError
from stylesim.core.targets import check_targets

SGD = {"_target_": "stylesim.learning.optim.sgd", "_partial_": True}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"head_lr": "abc"}, "optim.head_lr must be a number, got 'abc'."),
        ({"warmup_steps": 1e3}, "optim.warmup_steps must be an integer, got 1000.0."),
        ({"schedule": "linear"}, "optim.schedule must be constant or cosine, got 'linear'."),
        (
            {"head_ler": 1.0},
            "optim.head_ler is not a parameter of stylesim.learning.optim.sgd. Did you mean 'head_lr'?",
        ),
        ({"head_lr": "???"}, "optim.head_lr must be given: add optim.head_lr=... to the command."),
        ({"_partial_": False, "global_batch": 1, "encoder": None}, "optim.max_steps is missing"),
    ],
)
def test_wrong_node_is_refused_in_a_sentence(node: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_targets(OmegaConf.create({"optim": {**SGD, **node}}))
    assert message in str(error.value)


def test_all_problems_are_listed_at_once() -> None:
    nodes = {"a": {**SGD, "head_lr": "x"}, "b": {"c": [{**SGD, "momentum": None}]}}
    with pytest.raises(ConfigError) as error:
        check_targets(OmegaConf.create(nodes))
    assert "a.head_lr must be a number, got 'x'." in str(error.value)
    assert "b.c.0.momentum must be a number, got null." in str(error.value)


def test_nodes_of_other_packages_are_not_checked() -> None:
    check_targets(OmegaConf.create({"sampler": {"_target_": "optuna.samplers.TPESampler", "anything": 1}}))


@pytest.mark.parametrize("group", ["readout", "optim", "loss"])
def test_every_option_of_a_group_fits_its_target(group: str) -> None:
    for file in (conf_dir() / group).glob("*.yaml"):
        check_targets(OmegaConf.create({group: OmegaConf.load(file)}))
