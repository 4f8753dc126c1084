"""The program `stylesim`, as users start it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import overrides_for

import stylesim
from stylesim.core.conf import PACKAGE


def program(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-m", "stylesim", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def imports_torch(done: subprocess.CompletedProcess[str]) -> bool:
    return any(line.endswith("| torch") for line in done.stderr.splitlines())


def test_help_lists_every_command_with_a_line_and_without_torch(tmp_path: Path) -> None:
    done = program("--help", cwd=tmp_path)
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert set(lines) == {file.stem for file in PACKAGE.glob("[a-z]*.py")}
    assert all(len(line.split()) > 3 for line in lines.values())
    assert not imports_torch(done)


def test_unknown_command_is_told_with_the_nearest(tmp_path: Path) -> None:
    done = program("trian", cwd=tmp_path)
    assert done.returncode == 2
    assert "stylesim: trian is not a command. Did you mean 'train'?" in done.stderr


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    assert program("--version", cwd=tmp_path).stdout.strip() == stylesim.__version__


def test_models_are_listed_with_size_licence_and_weights_without_torch(tmp_path: Path) -> None:
    done = program("models", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert set(rows) - {"model"} == {model.name for model in stylesim.list_models()}
    assert "none needed" in rows["palette"]
    assert not imports_torch(done)


@pytest.mark.slow
def test_a_command_and_its_ranks_run_as_those_of_its_module(shards: Path, tmp_path: Path) -> None:
    overrides = overrides_for(shards, "trainer=ddp_cpu", "trainer.max_steps=2", "data.batch_size=3")
    name = "it's (1) = [ü], #"  # Lightning hands it to the other rank through Hydra's grammar
    done = program("train", *overrides, f"hydra.run.dir={name}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name / "report.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name], "no rank has made a folder of its own"
    provenance = json.loads((tmp_path / name / "provenance.json").read_text())
    assert provenance["command"].startswith("stylesim train model=csd_vitb ")
