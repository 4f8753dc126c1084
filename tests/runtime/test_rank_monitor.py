"""When one rank ends, the others end as well, say which one it was, and leave no process behind."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import overrides_for
from processes import processes_of

from stylesim.core.errors import StylesimError
from stylesim.runtime import launch, rank_monitor
from stylesim.runtime.rank_monitor import Watch, lost_rank

STEPS = 30


def python(program: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", program])


def test_watch_lets_the_main_process_finish_when_a_rank_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_monitor, "GRACE_S", 5.0)
    child = python("raise SystemExit(3)")
    watch = Watch([child])
    watch.start()
    child.wait()
    rank_monitor.stop_watching()
    launch.end_ranks()
    watch.join(10)
    assert not watch.is_alive()
    assert child.returncode == 3


@pytest.mark.slow
def test_watch_ends_a_job_that_hangs_without_its_rank() -> None:
    program = (
        "import subprocess, sys, time, stylesim.runtime.rank_monitor as monitor\n"
        "monitor.GRACE_S = 1.0\n"
        "monitor.Watch([subprocess.Popen([sys.executable, '-c', 'raise SystemExit(3)']),"
        " subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])]).start()\n"
        "time.sleep(100)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == -9
    assert "rank 1 (process " in done.stderr
    assert "ended with code 3" in done.stderr
    assert "resume=true" in done.stderr


def test_of_several_failed_ranks_the_killed_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "running", [])
    children = [python("raise SystemExit(1)"), python("import time; time.sleep(100)")]
    children[1].kill()
    for child in children:
        child.wait()
    Watch(children)  # not started, because the error comes first
    error = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234")
    sentence = str(lost_rank(error))
    assert sentence.startswith(f"rank 2 (process {children[1].pid}) was ended by SIGKILL")


def test_rank_of_another_launcher_names_itself_and_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "running", [])
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    sentence = str(lost_rank(RuntimeError("NCCL error: remote process exited\nand a trace")))
    assert sentence.startswith("rank 5 stops because it has lost another rank")
    assert "(NCCL error: remote process exited)" in sentence


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError("Broken pipe"), StylesimError("gloo")])
def test_other_errors_are_not_explained(error: Exception) -> None:
    assert lost_rank(error) is None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the processes are found in /proc")
@pytest.mark.parametrize(("ranks", "victim"), [(2, 0), (3, 1)])
def test_killed_rank_ends_the_others_within_a_minute_and_the_run_can_be_resumed(
    ranks: int, victim: int, shards: Path, tmp_path: Path
) -> None:
    overrides = overrides_for(
        shards,
        "trainer=ddp_cpu",
        f"trainer.devices={ranks}",
        f"trainer.max_steps={STEPS}",
        "data.workers=1",
        "data.batch_size=2",
        "data.probes.validation.every_n_steps=null",
        "callbacks.checkpoints.monitor=null",
        "callbacks.checkpoints.every_n_steps=3",
        "hydra.run.dir=run",
    )
    command = [sys.executable, "-m", "stylesim.train", *overrides]
    with (tmp_path / "stderr").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=log, start_new_session=True)
    while not (tmp_path / "run/checkpoints/last.ckpt").exists():
        assert process.poll() is None, (tmp_path / "stderr").read_text()
        time.sleep(0.01)
    pids = {rank: pid for pid, (parent, rank) in processes_of(process.pid).items() if parent == process.pid}
    killed = process.pid if victim == 0 else pids[str(victim)]
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while processes_of(process.pid) and time.monotonic() < deadline:
        process.poll()
        time.sleep(0.1)
    left = processes_of(process.pid)
    stderr = (tmp_path / "stderr").read_text()
    for orphan in left:
        os.kill(orphan, signal.SIGKILL)
    assert not left, stderr
    assert process.wait() != 0
    assert f"rank {victim} (process {killed}) " in stderr
    assert "resume=true" in stderr
    subprocess.run([*command, "resume=true"], cwd=tmp_path, check=True, timeout=900)
    steps = [int(row["step"]) for row in csv.DictReader((tmp_path / "run/metrics.csv").open()) if row["train/loss"]]
    assert steps == list(range(STEPS)), "the log has every step once"
