"""What a sweep of evaluations does beside its jobs: a failed one leaves its reason, all of them leave one table."""

from __future__ import annotations

import atexit
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from stylesim.core.errors import StylesimError
from stylesim.report.run_folders import ERROR
from stylesim.runtime.hydra_errors import explain


class TableOfSweep(Callback):
    """Builds the table of `report.benchmark` in the folder of the sweep, when the command ends.

    At the exit of the process, since Hydra calls `on_multirun_end` only where every job has succeeded, and a sweep that
    is stopped leaves a table as well.
    """

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Leave the error of a failed job in its folder, or remove that of an earlier attempt."""
        file = Path(config.hydra.runtime.output_dir) / ERROR
        file.unlink(missing_ok=True)
        if job_return.status is JobStatus.FAILED:
            error = job_return._return_value
            file.write_text(f"{explain(error) or f'{type(error).__name__}: {error}'}\n")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note where the jobs will leave their folders."""
        atexit.register(_build, Path(config.hydra.sweep.dir))


def _build(folder: Path) -> None:
    from stylesim.report.benchmark_export import write_benchmark

    try:
        print(write_benchmark(folder), flush=True)
    except StylesimError as error:  # such as a sweep whose first job could not even be composed
        print(f"stylesim: no table: {error}")
