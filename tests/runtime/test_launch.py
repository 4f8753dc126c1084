"""What a command leaves in its run folder, and what it tells."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import draw
from omegaconf import OmegaConf


def embed(*overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stylesim.embed", "images=mine", "model.image_size=32", "device=cpu", *overrides]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_run_folder_holds_configuration_metrics_provenance_and_messages(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "good.png").write_bytes(draw("red", 0))
    (tmp_path / "mine" / "broken.png").write_bytes(b"not an image")
    done = embed("model=color_histogram", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "left out mine/broken.png: " in done.stderr
    assert "left out" not in done.stdout
    assert done.stdout.startswith("1 descriptors of dimension 512: ")
    run = tmp_path / "run"
    assert "[WARNING] left out mine/broken.png: " in (run / "embed.log").read_text()
    assert json.loads((run / "metrics.json").read_text())["images"] == 1
    assert OmegaConf.load(run / "config.yaml").images == "mine"
    assert json.loads((run / "provenance.json").read_text())["command"].startswith("stylesim embed images=mine")


def test_refused_command_leaves_nothing_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stylesim.evaluate", "data=shards", "data.root=nowhere", "model=ink_box"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("stylesim: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_place_that_cannot_be_written_is_named_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "good.png").write_bytes(draw("red", 0))
    for override, place in (("hydra.run.dir=file/run", "file"), ("out=file/out", "file")):
        done = embed("model=ink_box", override, cwd=tmp_path)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert place in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_error_is_told_once_and_in_the_log_of_a_folder_that_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "good.png").write_bytes(draw("red", 0))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    done = embed("model=csd_lite0", "model.weights=random", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("stylesim: ")
    assert done.stderr.count("allow_untrained=true") == 1
    assert "allow_untrained=true" in (tmp_path / "run" / "embed.log").read_text()
