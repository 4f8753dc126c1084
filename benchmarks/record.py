"""Shared by the benchmarks: how workers start, and a CSV of results with the machine, commit and package versions."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from multiprocessing import set_start_method
from pathlib import Path
from typing import Any

import pandas as pd

from stylesim.runtime.launch import commit

REPOSITORY = Path(__file__).parents[1]


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Return the name of the processor and its number of `cores()`."""
    try:
        match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        match = None
    return f"{match[1] if match else platform.processor() or platform.machine()}, {cores()} cores"


def fork_workers() -> None:
    """Fork data workers where the system does so by default, as training does.

    Call it in a spawned process, which would otherwise spawn its workers and import everything again in each.
    """
    if sys.platform == "linux":
        set_start_method("fork", force=True)


def write_table(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    packages: Sequence[str],
    hardware: str | None = None,
) -> Path:
    """Print the rows, and write them to `benchmarks/results/<name>_<hardware>.csv` with what is needed to repeat them.

    Args:
        name: Name of the benchmark.
        rows: What was measured, by column.
        settings: Settings of the run, which become columns.
        packages: Packages whose versions become columns.
        hardware: The device that was measured, if it is not the processor.
    """
    hardware = hardware or processor()
    facts = {**settings, "hardware": hardware, "commit": commit(), "python": platform.python_version()}
    facts |= {package: version(package) for package in packages}
    slug = re.sub(r"[^0-9a-z]+", "-", hardware.lower()).strip("-")
    path = REPOSITORY / "benchmarks/results" / f"{name}_{slug}.csv"
    path.parent.mkdir(exist_ok=True)
    table = pd.DataFrame(rows, dtype=object)
    table.assign(**facts).to_csv(path, index=False, lineterminator="\n")
    print(table.to_string(index=False, na_rep=""))
    print(f"{hardware}: {path}")
    return path
