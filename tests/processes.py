"""The processes of a command that a test has started."""

from __future__ import annotations

from pathlib import Path


def processes_of(session: int) -> dict[int, tuple[int, str]]:
    """(parent, LOCAL_RANK) of each living process of a session."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            environment = (folder / "environ").read_text().split("\0")
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            rank = next((e.partition("=")[2] for e in environment if e.startswith("LOCAL_RANK=")), "0")
            found[int(folder.name)] = (int(parent), rank)
    return found


def children_of(parent: int) -> dict[int, bytes]:
    """The environment of each living child of a process, by its id."""
    found = {}
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        found[int(child)] = Path(f"/proc/{child}/environ").read_bytes()
    return found
