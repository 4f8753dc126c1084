"""What benchmarks share: processes of their own, and what each says of itself: its rows, the machine, the commit and
the packages, in one CSV."""

from __future__ import annotations

import csv
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from multiprocessing import set_start_method
from pathlib import Path
from typing import Any

from stylesim.runtime.launch import commit

REPOSITORY = Path(__file__).parents[1]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name and its `cores()`."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return f"{found[1] if found else platform.processor() or platform.machine()}, {cores()} cores"


def start_workers_as_training_does() -> None:
    """By forking, where the system forks: a process that was spawned would spawn them, and import everything anew."""
    if sys.platform == "linux":
        set_start_method("fork", force=True)


def write_table(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    setting: Mapping[str, Any],
    packages: Sequence[str],
    hardware: str | None = None,
) -> Path:
    """Print the rows, and write them to `benchmarks/results/<name>_<hardware>.csv` with all that explains them.

    `hardware`: of what was measured, where that was not the processor.
    """
    hardware = hardware or processor()
    facts = {**setting, "hardware": hardware, "commit": commit(), "python": platform.python_version()}
    facts |= {package: version(package) for package in packages}
    slug = re.sub(r"[^0-9a-z]+", "-", hardware.lower()).strip("-")
    table = REPOSITORY / "benchmarks/results" / f"{name}_{slug}.csv"
    table.parent.mkdir(exist_ok=True)
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *facts], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **facts} for row in rows)
    columns = [[column, *(str(row[column]) for row in rows)] for column in rows[0]]
    widths = [max(map(len, column)) for column in columns]
    for line in zip(*columns, strict=True):
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print(f"{hardware}: {table}")
    return table
