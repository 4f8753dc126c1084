"""One rank of a job that ends ends the others, and is named.

Lightning starts the other ranks of a machine as children of rank 0. Rank 0 watches them, they watch rank 0, and what a
collective says whose peer has gone is told as a sentence. Ranks of torchrun and SLURM are watched by their launchers.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import ClassVar

from stylesim.core.errors import StylesimError

GRACE_S = 20.0  # what the other ranks get to end by themselves after one has failed
RANK_ZERO = "STYLESIM_RANK_ZERO"
"""Environment variable by which the ranks that Lightning starts know the process of rank 0."""
GO_ON = "The same command with resume=true goes on from the last checkpoint."

# What gloo, NCCL and the store say when a peer has gone.
_LOST = re.compile(r"gloo|nccl|tcpstore|connection (closed|reset|refused)|broken pipe|socket", re.IGNORECASE)


class Watch(threading.Thread):
    """Watches the ranks that this process has started, in place of Lightning's own observer.

    Lightning's kills the main process at once when a child fails, and the rest of a sweep with it. Here the main
    process has `GRACE_S` seconds to see the failure itself (a collective without its peer raises, a bad loss is bad
    on every rank); only one that hangs is killed.
    """

    running: ClassVar[list[Watch]] = []

    def __init__(self, children: list[subprocess.Popen]) -> None:
        super().__init__(daemon=True, name="stylesim-watch")
        self.children = children
        self.over = threading.Event()
        self.running.append(self)

    def run(self) -> None:
        while not self.over.wait(0.5):
            if (culprit := self.culprit()) and not self.over.wait(GRACE_S):
                print(f"stylesim: {culprit}, and rank 0 hangs without it. {GO_ON}", file=sys.stderr, flush=True)
                self.kill()
                os.kill(os.getpid(), signal.SIGKILL)

    def culprit(self) -> str | None:
        """The rank that has failed, and how; of several, one that was killed, for the others failed without it."""
        failed = [(p.returncode > 0, i, p) for i, p in enumerate(self.children, 1) if p.poll()]
        if not failed:
            return None
        _, rank, process = min(failed, key=lambda one: one[:2])
        return f"rank {rank} (process {process.pid}) {_ending(process.returncode)}"

    def finish(self) -> None:
        """The job is over in this process: give the others a moment to end, then end them."""
        self.over.set()
        deadline = time.monotonic() + GRACE_S
        while any(p.poll() is None for p in self.children) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        for process in self.children:
            if process.poll() is None:
                process.kill()


def _ending(code: int) -> str:
    if code != -signal.SIGKILL:
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code} (see above)"
    return "was ended by SIGKILL, as the kernel does where memory runs out"


def watch_started_ranks() -> None:
    """Have the ranks that Lightning starts watched by `Watch` instead of Lightning's own observer.

    Lightning's observer would end a whole sweep with the first child that fails. Call before the Trainer is built.
    """
    from lightning.pytorch.strategies.launchers import subprocess_script

    subprocess_script._launch_process_observer = lambda children: Watch(children).start()  # type: ignore[assignment]


def stop_watching() -> None:
    """Rank 0 knows how its job ends: from now on no child's exit is to end it."""
    for watch in Watch.running:
        watch.over.set()


def follow_rank_zero() -> None:
    """In a rank that Lightning has started: end when rank 0 has gone, be it without a word."""
    if _rank_zero() is not None:
        threading.Thread(target=_follow, daemon=True, name="stylesim-follow").start()


def _rank_zero() -> int | None:
    """The process of rank 0, if it has started this one."""
    is_child = os.environ.get(RANK_ZERO) and os.environ.get("LOCAL_RANK", "0") != "0"
    return int(os.environ[RANK_ZERO]) if is_child else None


def _follow() -> None:
    while os.getppid() == _rank_zero():
        time.sleep(0.5)
    time.sleep(GRACE_S)
    print(f"stylesim: {_orphaned()}", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def _orphaned() -> str:
    return f"rank 0 (process {_rank_zero()}) has ended, so rank {os.environ['LOCAL_RANK']} stops as well. {GO_ON}"


def lost_rank(error: Exception) -> StylesimError | None:
    """The sentence for an `error` of a collective that another rank's end has broken; None for any other error."""
    if isinstance(error, StylesimError) or not (isinstance(error, RuntimeError) and _LOST.search(str(error))):
        return None
    started = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1) > 1
    if not (started or Watch.running or _rank_zero() is not None):
        return None  # there is no other rank
    # A connection can break before its process counts as ended. Other launchers end this one soon: no time to wait.
    deadline = time.monotonic() + 2 * (bool(Watch.running) or _rank_zero() is not None)
    while time.monotonic() < deadline:
        if culprits := [culprit for watch in Watch.running if (culprit := watch.culprit())]:
            return StylesimError(f"{culprits[0]}, so the job is stopped. {GO_ON}")
        if _rank_zero() not in (None, os.getppid()):
            return StylesimError(_orphaned())
        time.sleep(0.1)
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or os.environ.get("LOCAL_RANK", "0")
    return StylesimError(
        f"rank {rank} stops, for it has lost another one, whose own message or whose launcher's says why"
        f" ({str(error).splitlines()[0][:200]}). {GO_ON}"
    )
