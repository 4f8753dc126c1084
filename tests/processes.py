"""Helpers for tests that start processes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path


def processes_of(session: int) -> dict[int, tuple[int, str]]:
    """Return (parent, LOCAL_RANK) of each living process of a session, by process id."""
    processes = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            environment = (folder / "environ").read_text().split("\0")
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            rank = next((e.partition("=")[2] for e in environment if e.startswith("LOCAL_RANK=")), "0")
            processes[int(folder.name)] = (int(parent), rank)
    return processes


def children_of(parent: int) -> dict[int, bytes]:
    """Return the environment of each living child of a process, by process id."""
    environments = {}
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        environments[int(child)] = Path(f"/proc/{child}/environ").read_bytes()
    return environments


def preload_in_forkserver() -> None:
    """Have the forkserver import the slow modules once, instead of in every process that it starts.

    DDP's constructor imports torch._dynamo. Only the first call of a test session has an effect.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        [
            "hypothesis",
            "pytest",
            "torch._dynamo",
            "torch.distributed.fsdp",
            "stylesim.evaluation.evaluate",
            "stylesim.learning.style_module",
            "stylesim.scoring.style_similarity",
        ]
    )
