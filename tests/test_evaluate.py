from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from stylesim import evaluate
from stylesim.errors import StylesimError


@pytest.fixture
def evaluation(composed: Callable[..., DictConfig], shards: Path) -> Callable[..., DictConfig]:
    def make(*more: str) -> DictConfig:
        spec = (
            "{_target_: stylesim.retrieval.spec.RetrievalSpec, query: ['%s'], relevant: 'set:*',"
            " distinct: content, ks: [1, 5]}" % (shards / "validation")
        )
        return composed("data=laion_styles", f"+data.probes.validation={spec}", "device=cpu", *more, config="evaluate")

    return make


def test_a_control_is_scored_and_scored_again_from_its_descriptors_without_a_model(
    evaluation: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = evaluation("model=color_histogram", "model.image_size=48")
    figures = evaluate.main(cfg)
    assert figures["validation/recall@1"] == 1.0, "three styles of three colours"
    kept = tmp_path / "kept"
    shutil.copytree(Path(cfg.run_dir) / "descriptors", kept)
    monkeypatch.setattr(evaluate, "instantiate", _only_the_data(evaluate.instantiate))
    assert evaluate.main(evaluation("model=csd_vitl", f"descriptors={kept}")) == figures


def _only_the_data(instantiate: Callable) -> Callable:
    def guarded(node: DictConfig, *args: object, **kwargs: object) -> object:
        assert ".data." in node._target_, f"{node._target_} was built, though the descriptors are there"
        return instantiate(node, *args, **kwargs)

    return guarded


def test_an_untrained_head_is_scored_only_when_asked_for(
    evaluation: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    vit = ["model=csd_vitb", "model.architecture=ViT-test", "model.image_size=32", "model.weights=random"]
    with pytest.raises(StylesimError, match="allow_untrained=true"):
        evaluate.main(evaluation(*vit))
    assert evaluate.main(evaluation(*vit, "allow_untrained=true"))["validation/queries"] == 18


def test_descriptors_that_are_not_there_are_named(evaluation: Callable[..., DictConfig], tmp_path: Path) -> None:
    with pytest.raises(StylesimError, match="There are no descriptors"):
        evaluate.main(evaluation(f"descriptors={tmp_path / 'nothing'}"))


def test_data_without_a_retrieval_set_says_so(composed: Callable[..., DictConfig]) -> None:
    with pytest.raises(StylesimError, match=r"data\.probes"):
        evaluate.main(composed("data=laion_styles", "model=color_histogram", config="evaluate"))
