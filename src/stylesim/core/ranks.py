"""Find out from the launcher's environment variables which process of a distributed job this one is."""

from __future__ import annotations

import os


def is_main_process() -> bool:
    """Return whether this process is rank 0 of its job, which writes the files and the messages of the run.

    Lightning, torchrun and SLURM each set some of these variables; outside a distributed job none of them is set.
    """
    return all(int(os.environ.get(name, 0)) == 0 for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"))


def launched_world_size() -> int:
    """Return the number of processes that torchrun or SLURM has started, 1 if neither has."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)
