"""Leave one table for a sweep of evaluations, and the error of each job that failed."""

from __future__ import annotations

import atexit
import logging
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from stylesim.core.errors import StylesimError
from stylesim.core.files import write_text
from stylesim.report.run_folders import ERROR
from stylesim.runtime.hydra_errors import explain

log = logging.getLogger(__name__)


class TableOfSweep(Callback):
    """Hydra callback that writes the benchmark table into the folder of a sweep when the command ends.

    It does so when the process exits: Hydra calls `on_multirun_end` only if every job has succeeded, and a sweep that
    is stopped should leave a table as well.
    """

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Write the error of a failed job into its folder, or remove the error of an earlier attempt."""
        file = Path(config.hydra.runtime.output_dir) / ERROR
        file.unlink(missing_ok=True)
        if job_return.status is JobStatus.FAILED:
            error = job_return._return_value
            write_text(file, f"{explain(error) or f'{type(error).__name__}: {error}'}\n")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note where the jobs will leave their folders."""
        atexit.register(_write_table, Path(config.hydra.sweep.dir))


def _write_table(folder: Path) -> None:
    from stylesim.report.benchmark_export import write_benchmark

    try:
        print(write_benchmark(folder), flush=True)
    except StylesimError as error:  # for instance because no job could be composed
        log.warning("The sweep leaves no table: %s", error)
