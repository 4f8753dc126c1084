from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from stylesim.core.errors import StylesimError
from stylesim.runtime.resume import find_run


def write_run(folder: Path, **values: object) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    OmegaConf.save({"run_dir": str(folder), "resume": False, **values}, folder / "config.yaml")
    return folder


def test_resume_takes_the_newest_run_with_this_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "outputs/day/old", lr=1)
    newest = write_run(tmp_path / "outputs/day/new", lr=1)
    other = write_run(tmp_path / "outputs/day/other", lr=2)
    for age, run in ((30, tmp_path / "outputs/day/old"), (20, newest), (10, other)):
        then = time.time() - age
        os.utime(run / "checkpoints" / "last.ckpt", (then, then))
    fresh = tmp_path / "outputs/day/fresh"
    (fresh / ".hydra").mkdir(parents=True)
    cfg = OmegaConf.create({"resume": True, "run_dir": None, "lr": 1})
    assert find_run(cfg, fresh) == newest
    assert not fresh.exists(), "the folder that Hydra made for the command is not left behind"


def test_resume_continues_in_a_named_folder_or_refuses_one_without_a_checkpoint(tmp_path: Path) -> None:
    sibling, named = write_run(tmp_path / "sibling", lr=1), write_run(tmp_path / "named", lr=1)
    os.utime(named / "checkpoints" / "last.ckpt", (1, 1))
    cfg = OmegaConf.create({"resume": True, "run_dir": None, "lr": 1})
    assert find_run(cfg, named) == named
    (named / "checkpoints" / "last.ckpt").unlink()  # stopped before its first checkpoint
    with pytest.raises(StylesimError, match=r"resume=true: .*named holds a run without a checkpoint"):
        find_run(cfg, named)
    assert (named / "config.yaml").exists()
    assert sibling.exists()


def test_resume_by_path_takes_a_folder_or_its_checkpoint(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for path in (run, run / "checkpoints" / "last.ckpt"):
        assert find_run(OmegaConf.create({"resume": str(path)}), tmp_path / "fresh") == run
    with pytest.raises(StylesimError, match="is not a run folder"):
        find_run(OmegaConf.create({"resume": str(tmp_path)}), tmp_path / "fresh")
