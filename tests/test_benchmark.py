from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from stylesim import benchmark
from stylesim.core.errors import StylesimError


@pytest.mark.slow
def test_run_folders_become_a_table_on_disk_and_in_wandb(
    tmp_path: Path, composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    for model, recall in (("ink_box", 0.2), ("color_histogram", 0.4)):
        hydra = {"runtime": {"choices": {"model": model, "data": "shards"}}, "overrides": {"task": [f"model={model}"]}}
        (tmp_path / model / ".hydra").mkdir(parents=True)
        OmegaConf.save({"hydra": hydra}, tmp_path / model / ".hydra" / "hydra.yaml")
        (tmp_path / model / "metrics.json").write_text(json.dumps({"all/recall@1": recall}))
    monkeypatch.chdir(tmp_path)
    assert benchmark.main(composed("runs=.", "wandb=stylesim", config="benchmark")) == {}
    assert "color_histogram" in (tmp_path / "benchmark.md").read_text()
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/table/benchmark*"))
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/metrics*"))


def test_folder_without_runs_is_refused(tmp_path: Path, composed: Callable[..., DictConfig]) -> None:
    with pytest.raises(StylesimError, match="There is no run below"):
        benchmark.main(composed(f"runs={tmp_path}", config="benchmark"))
