"""End all ranks of a job when one of them has ended, and say which one it was.

Lightning starts the other ranks of a machine as child processes of rank 0. Rank 0 watches them, they watch rank 0, and
the error that a collective raises when its peer is gone is turned into a sentence. Ranks that torchrun or SLURM has
started are watched by these launchers.
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
from stylesim.core.ranks import launched_world_size

GRACE_S = 20.0
"""Seconds that the other ranks have to end by themselves after one has failed."""
RANK_ZERO = "STYLESIM_RANK_ZERO"
"""Environment variable with the process id of rank 0, for the ranks that Lightning starts."""
HOW_TO_RESUME = "The same command with resume=true continues from the last checkpoint."

# What gloo, NCCL and the store say when a peer is gone.
_LOST = re.compile(r"gloo|nccl|tcpstore|connection (closed|reset|refused)|broken pipe|socket", re.IGNORECASE)


class Watch(threading.Thread):
    """Watch the ranks that this process has started, in place of Lightning's own observer.

    Lightning's observer kills the main process at once when a child fails, and the rest of a sweep with it. This one
    gives the main process `GRACE_S` seconds to notice the failure itself (a collective raises without its peer, and a
    loss that is not finite is so on every rank), and kills it only if it hangs.
    """

    running: ClassVar[list[Watch]] = []

    def __init__(self, children: list[subprocess.Popen]) -> None:
        super().__init__(daemon=True, name="stylesim-watch")
        self.children = children
        self.over = threading.Event()
        self.running.append(self)

    def run(self) -> None:
        """Wait until the job is over, or a rank has failed and this process has not noticed."""
        while not self.over.wait(0.5):
            if (failure := self.failure()) and not self.over.wait(GRACE_S):
                print(f"stylesim: {failure}, and rank 0 hangs without it. {HOW_TO_RESUME}", file=sys.stderr, flush=True)
                self.kill()
                os.kill(os.getpid(), signal.SIGKILL)

    def failure(self) -> str | None:
        """Return which rank has failed and how. Of several, one that was killed, since the others failed without it."""
        failed = [(p.returncode > 0, i, p) for i, p in enumerate(self.children, 1) if p.poll()]
        if not failed:
            return None
        _, rank, process = min(failed, key=lambda one: one[:2])
        return f"rank {rank} (process {process.pid}) {_ending(process.returncode)}"

    def finish(self) -> None:
        """Give the other ranks `GRACE_S` seconds to end, then kill them. The job is over in this process."""
        self.over.set()
        deadline = time.monotonic() + GRACE_S
        while any(p.poll() is None for p in self.children) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        """Kill the ranks that still run."""
        for process in self.children:
            if process.poll() is None:
                process.kill()


def _ending(code: int) -> str:
    if code != -signal.SIGKILL:
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code} (see above)"
    return "was ended by SIGKILL, which the kernel sends when memory runs out"


def watch_started_ranks() -> None:
    """Have the ranks that Lightning starts watched by `Watch` instead of Lightning's own observer.

    Lightning's observer would end a whole sweep with the first child that fails. Call before the Trainer is built.
    """
    from lightning.pytorch.strategies.launchers import subprocess_script

    subprocess_script._launch_process_observer = lambda children: Watch(children).start()


def stop_watching() -> None:
    """Let ranks end without consequence from now on, because rank 0 knows how its job ends."""
    for watch in Watch.running:
        watch.over.set()


def follow_rank_zero() -> None:
    """In a rank that Lightning has started, end this process when rank 0 is gone, even if it was killed."""
    if _rank_zero() is not None:
        threading.Thread(target=_follow, daemon=True, name="stylesim-follow").start()


def _rank_zero() -> int | None:
    """Return the process id of rank 0 if it has started this process."""
    is_child = os.environ.get(RANK_ZERO) and os.environ.get("LOCAL_RANK", "0") != "0"
    return int(os.environ[RANK_ZERO]) if is_child else None


def _follow() -> None:
    while os.getppid() == _rank_zero():
        time.sleep(0.5)
    time.sleep(GRACE_S)
    print(f"stylesim: {_orphaned()}", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def _orphaned() -> str:
    rank = os.environ["LOCAL_RANK"]
    return f"rank 0 (process {_rank_zero()}) has ended, so rank {rank} stops as well. {HOW_TO_RESUME}"


def lost_rank(error: Exception) -> StylesimError | None:
    """Return a sentence for an error of a collective that another rank's end has caused; None for any other error."""
    if isinstance(error, StylesimError) or not (isinstance(error, RuntimeError) and _LOST.search(str(error))):
        return None
    if not (launched_world_size() > 1 or Watch.running or _rank_zero() is not None):
        return None  # there is no other rank
    # A connection can break before its process counts as ended. Other launchers end this process soon: do not wait.
    deadline = time.monotonic() + 2 * (bool(Watch.running) or _rank_zero() is not None)
    while time.monotonic() < deadline:
        if failures := [failure for watch in Watch.running if (failure := watch.failure())]:
            return StylesimError(f"{failures[0]}, so the job is stopped. {HOW_TO_RESUME}")
        if _rank_zero() not in (None, os.getppid()):
            return StylesimError(_orphaned())
        time.sleep(0.1)
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or os.environ.get("LOCAL_RANK", "0")
    return StylesimError(
        f"rank {rank} stops because it has lost another rank; that rank's own message, or its launcher's, says why"
        f" ({str(error).splitlines()[0][:200]}). {HOW_TO_RESUME}"
    )
