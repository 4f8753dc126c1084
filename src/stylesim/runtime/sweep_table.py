"""Leave one table for a sweep of evaluations, and the error of each job that failed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from stylesim.core.errors import StylesimError
from stylesim.core.files import write_text
from stylesim.core.ranks import is_main_process
from stylesim.report.run_folders import ERROR
from stylesim.runtime.hydra_errors import explain

log = logging.getLogger(__name__)


class TableOfSweep(Callback):
    """Hydra callback that records the folder of a sweep, for `write_sweep_tables`, and the error of each failed job.

    Hydra calls `on_multirun_end` only if every job has succeeded, but a sweep that fails or is stopped should leave a
    table as well.
    """

    folders: ClassVar[list[Path]] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Write the error of a failed job into its folder, or remove the error of an earlier attempt."""
        folder = Path(config.hydra.runtime.output_dir)
        if not (folder.is_dir() and is_main_process()):  # a command that is refused has left no folder
            return
        file = folder / ERROR
        file.unlink(missing_ok=True)
        if job_return.status is JobStatus.FAILED:
            error = job_return._return_value
            write_text(file, f"{explain(error) or f'{type(error).__name__}: {error}'}\n")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Record where the jobs will leave their folders."""
        self.folders.append(Path(config.hydra.sweep.dir))


def write_sweep_tables() -> None:
    """Write and print the table of the sweep that this process has run, if it has run one."""
    while TableOfSweep.folders:
        from stylesim.report.tables.benchmark_export import write_benchmark

        folder = TableOfSweep.folders.pop()
        try:
            print(write_benchmark(folder), flush=True)
        except StylesimError as error:  # for instance because no job could be composed
            log.warning("The sweep leaves no table: %s", error)
