from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import DictConfig

from stylesim import evaluate
from stylesim.core.errors import StylesimError
from stylesim.runtime import evaluation_run


@pytest.fixture
def evaluation(composed: Callable[..., DictConfig], shards: Path) -> Callable[..., DictConfig]:
    def make(*more: str) -> DictConfig:
        spec = (
            "{_target_: stylesim.evaluation.retrieval_spec.RetrievalSpec, query: ['%s'], relevant: 'set:*',"
            " distinct: content, ks: [1, 5]}" % (shards / "validation")
        )
        return composed("data=laion_styles", f"+data.probes.validation={spec}", "device=cpu", *more, config="evaluate")

    return make


@pytest.mark.slow
def test_control_is_evaluated_and_again_from_its_descriptors_without_a_model(
    evaluation: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = evaluation("model=color_histogram", "model.image_size=48")
    metrics = evaluate.main(cfg)
    assert metrics["validation/recall@1"] == 1.0, "three styles of three colours"
    copy = tmp_path / "copy"
    shutil.copytree(Path(cfg.run_dir) / "descriptors", copy)
    for module in (evaluate, evaluation_run):
        monkeypatch.setattr(module, "instantiate", _no_encoder(module.instantiate))
    assert evaluate.main(evaluation("model=csd_vitl", f"descriptors={copy}")) == metrics


def test_gaps_of_labels_are_written_when_asked_for(evaluation: Callable[..., DictConfig]) -> None:
    cfg = evaluation("model=color_histogram", "model.image_size=48", "gaps=true", "readout=csls", "readout.k=3")
    metrics = evaluate.main(cfg)
    assert metrics["validation/auc"] > 0.99, "three styles of three colours"
    assert metrics["validation/negative_gaps_pairwise"] == metrics["validation/negative_gaps_prototype"] == 0
    gaps = pd.read_csv(Path(cfg.run_dir) / "gaps.csv")
    assert gaps.groupby("variant")["label"].nunique().to_dict() == {"pairwise": 3, "prototype": 3}
    assert (gaps[["encoder", "set"]].drop_duplicates().to_numpy() == [["model", "validation"]]).all()
    assert gaps["gap"].to_numpy().min() > 0


@pytest.mark.slow
def test_finished_folder_is_evaluated_again_only_with_another_configuration(
    evaluation: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = evaluation("model=ink_box", "model.image_size=48")
    metrics = evaluate.main(cfg)
    per_query = pd.read_parquet(Path(cfg.run_dir) / "per_query.parquet")
    assert per_query["recall@1"].to_numpy().mean() == metrics["validation/recall@1"]
    assert set(per_query["set"]) == {"validation"}
    with monkeypatch.context() as patch:
        patch.delattr(evaluate, "instantiate")
        assert evaluate.main(evaluation("model=ink_box", "model.image_size=48")) == metrics
    other = evaluate.main(evaluation("model=color_histogram", "model.image_size=48"))
    assert other["validation/recall@1"] == 1.0 > metrics["validation/recall@1"]


@pytest.mark.slow
def test_sweep_leaves_one_table_and_continues_in_its_folder(shards: Path, tmp_path: Path) -> None:
    def sweep(models: str) -> subprocess.CompletedProcess[str]:
        command = f"-m model={models} data=shards data.root={shards / 'validation'} device=cpu hydra.sweep.dir=sweep"
        return subprocess.run(
            [sys.executable, "-m", "stylesim.evaluate", *command.split()],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )

    folder = tmp_path / "sweep"
    first = sweep("color_histogram,csd_vitb")
    assert first.returncode == 2, first.stderr
    assert "| color_histogram | 100.0 |" in " ".join(first.stdout.split())
    assert "- csd_vitb, shards: " in first.stdout, "the table says why a row is missing"
    assert (folder / "1" / "error.txt").is_file()
    second = sweep("color_histogram,ink_box")
    assert second.returncode == 0, second.stderr
    assert "has finished with this configuration already" in second.stderr
    assert not (folder / "1" / "error.txt").exists()
    table = (folder / "benchmark.md").read_text()
    assert "| all | ink_box |" in " ".join(table.split())
    assert "Missing" not in table
    metrics = json.loads((folder / "1" / "metrics.json").read_text())
    row = pd.read_csv(folder / "benchmark.csv").set_index(["encoder", "metric"]).loc[("ink_box", "recall@1")]
    assert float(row["ours"]) == metrics["all/recall@1"]
    assert float(row["low"]) < float(row["ours"]) < float(row["high"])


def _no_encoder(instantiate: Callable) -> Callable:
    def guarded(node: DictConfig, *args: object, **kwargs: object) -> object:
        assert ".encoders." not in node._target_, f"{node._target_} was built, although its descriptors exist"
        return instantiate(node, *args, **kwargs)

    return guarded


def test_untrained_head_is_evaluated_only_when_asked_for(
    evaluation: Callable[..., DictConfig],
) -> None:
    vit = ["model=csd_vitb", "model.architecture=ViT-test", "model.image_size=32", "model.weights=random"]
    with pytest.raises(StylesimError, match="allow_untrained=true"):
        evaluate.main(evaluation(*vit))
    assert evaluate.main(evaluation(*vit, "allow_untrained=true"))["validation/queries"] == 18


def test_missing_descriptors_are_named(evaluation: Callable[..., DictConfig], tmp_path: Path) -> None:
    with pytest.raises(StylesimError, match="has no descriptors of"):
        evaluate.main(evaluation(f"descriptors={tmp_path / 'nothing'}"))


def test_data_without_a_retrieval_set_is_refused(composed: Callable[..., DictConfig]) -> None:
    with pytest.raises(StylesimError, match=r"data\.probes"):
        evaluate.main(composed("data=laion_styles", "model=color_histogram", config="evaluate"))
