"""Sweeps of DDP jobs, as users start them: real commands, two processes a job."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import overrides_for
from omegaconf import OmegaConf


def sweep(shards: Path, folder: Path, *more: str) -> tuple[subprocess.CompletedProcess[str], list[Path]]:
    """Run a sweep and return the finished process and the job folders in order."""
    overrides = overrides_for(
        shards, "trainer=ddp_cpu", "trainer.max_steps=4", "data.batch_size=3", "hydra.sweep.dir=sweep", *more
    )
    done = subprocess.run(
        [sys.executable, "-m", "stylesim.train", "-m", *overrides],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert not (folder / "outputs").exists(), "a rank has made a folder of its own"
    assert [p.name for p in folder.iterdir() if p.is_dir()] == ["sweep"], "a rank has started a sweep of its own"
    return done, sorted(p.parent for p in (folder / "sweep").glob("*/config.yaml"))


def samples_seen(job: Path) -> list[float]:
    rows = csv.DictReader((job / "metrics.csv").open())
    return [float(row["samples_seen"]) for row in rows if row.get("train/loss")]


def is_complete(job: Path) -> bool:
    return (job / "metrics.json").is_file() and (job / "report.html").is_file()


@pytest.mark.slow
def test_grid_over_device_counts_with_failing_jobs(shards: Path, tmp_path: Path) -> None:
    done, jobs = sweep(shards, tmp_path, "trainer.devices=1,2", "optim.head_lr=0.003,1e38")
    assert done.returncode != 0, "a failed job fails the sweep"
    assert "not finite" in done.stderr, "the probe after the first step sees it"
    assert "Error executing job" not in done.stderr
    assert "Traceback" not in done.stderr
    assert len(jobs) == 4
    assert [is_complete(job) for job in jobs] == [True, False, True, False]
    # Two ranks of three images see twice as many as one does.
    assert samples_seen(jobs[0]) == [3.0, 6.0, 9.0, 12.0]
    assert samples_seen(jobs[2]) == [6.0, 12.0, 18.0, 24.0]


@pytest.mark.slow
def test_optuna_gives_both_ranks_of_a_trial_the_same_parameters(shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    done, jobs = sweep(shards, tmp_path, "sweep=optuna", "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    assert [is_complete(job) for job in jobs] == [True, True]
    temperatures = [OmegaConf.load(job / "config.yaml").loss.temperature for job in jobs]
    assert temperatures[0] != temperatures[1]
    assert all(samples_seen(job)[-1] == 24 for job in jobs)
    best = OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml")
    metrics = [json.loads((job / "metrics.json").read_text())["validation/recall@1"] for job in jobs]
    assert best.best_value == max(metrics)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray_local"])
def test_launchers_that_start_jobs_in_other_processes(launcher: str, shards: Path, tmp_path: Path) -> None:
    if launcher == "ray_local":
        pytest.importorskip("ray")
    done, jobs = sweep(shards, tmp_path, f"launcher={launcher}", "loss.temperature=0.05,0.1")
    assert done.returncode == 0, done.stderr
    assert [is_complete(job) for job in jobs] == [True, True]
    assert [OmegaConf.load(job / "config.yaml").loss.temperature for job in jobs] == [0.05, 0.1]
    assert all(f"| csd_vitb loss.temperature={value} |" in " ".join(done.stdout.split()) for value in (0.05, 0.1))
    assert all(samples_seen(job)[-1] == 24 for job in jobs)
