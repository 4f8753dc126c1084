"""A run folder that an earlier version left is found by `resume=true` and continued to the same weights."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import overrides_for
from safetensors.torch import load_file

LEGACY = Path(__file__).parents[1] / "legacy" / "training_run"
"""Version 0.1.0 at commit b384b9d, stopped after step 4 of 8; expected.safetensors are its weights after step 8."""


@pytest.mark.slow
def test_run_of_an_earlier_version_is_found_and_continued(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").symlink_to(shards)
    run = tmp_path / "outputs" / "2026-01-01" / "12-00-00"
    shutil.copytree(LEGACY, run)
    overrides = overrides_for(
        Path("shards"),
        "model.architecture={width: 8, layers: 1, heads: 2, patch: 8, image: 32, embed: 8}",
        "trainer.max_steps=8",
        "data.probes.validation.every_n_steps=null",
        "resume=true",
    )
    command = [sys.executable, "-m", "stylesim.train", *overrides]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (run / "train.log").stat().st_size > 0, "so does the log"
    assert [path.parent for path in tmp_path.glob("outputs/*/*/metrics.json")] == [run], "it continues in its folder"
    assert json.loads((run / "metrics.json").read_text())["validation/queries"] == 18
    steps = [int(row["step"]) for row in csv.DictReader((run / "metrics.csv").open()) if row["train/loss"]]
    assert steps == list(range(8)), "the log has every step once"
    expected, resumed = load_file(LEGACY / "expected.safetensors"), load_file(run / "checkpoints" / "last.safetensors")
    torch.testing.assert_close(resumed, expected, atol=1e-6, rtol=1e-5)
