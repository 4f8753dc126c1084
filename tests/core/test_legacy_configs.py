from __future__ import annotations

import pytest

from stylesim.core.legacy_configs import _TARGETS, current_config, current_target
from stylesim.core.signatures import signature


@pytest.mark.parametrize("old", sorted(_TARGETS))
def test_every_old_target_has_a_successor_that_exists(old: str) -> None:
    assert signature(current_target(f"stylesim.{old}")) is not None


def test_targets_of_this_version_and_of_other_packages_stay() -> None:
    for target in ("stylesim.learning.optim.sgd", "optuna.samplers.TPESampler"):
        assert current_target(target) == target


def test_loss_of_an_earlier_version_takes_its_content_weight_from_the_module() -> None:
    old = {
        "loss": {"_target_": "stylesim.learning.losses.csd_loss", "_partial_": True, "temperature": 0.1},
        "learning": {"_target_": "stylesim.learning.module.StyleModule", "content_weight": 0.2},
        "controls": {"a": {"_target_": "stylesim.encoders.vgg.vgg_gram"}},
        "list": [{"_target_": "stylesim.retrieval.spec.RetrievalSpec"}, 1],
    }
    new = current_config(old)
    assert new["loss"] == {"_target_": current_target("stylesim.learning.losses.csd_loss"), "temperature": 0.1} | {
        "content_weight": 0.2
    }
    assert "content_weight" not in new["learning"]
    assert new["controls"]["a"]["_target_"] == current_target("stylesim.encoders.vgg.vgg_gram")
    assert new["list"][0]["_target_"] == "stylesim.evaluation.retrieval_spec.RetrievalSpec"
    assert current_config(new) == new
