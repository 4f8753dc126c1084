"""Run a command under Hydra: check its configuration, manage its run folder, and start its DDP ranks, also in a sweep.

Lightning starts the other ranks of a DDP job by repeating the command line of the process. In a sweep that command line
is the whole *sweep*, and under joblib or submitit it is not stylesim's at all. `relaunchable` sets, during one job, the
command line that its ranks are started with.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from stylesim.core.allocator import keep_freed_memory
from stylesim.core.conf import PACKAGE, conf_dir
from stylesim.core.errors import ConfigError
from stylesim.core.files import atomic_path, write_json
from stylesim.core.ranks import is_main_process
from stylesim.core.wording import suggest
from stylesim.runtime.arguments import expand_home, quote, quote_for_lightning, readable_arguments
from stylesim.runtime.hydra_errors import USER_ERRORS, explain
from stylesim.runtime.rank_monitor import RANK_ZERO, Watch, follow_rank_zero, lost_rank
from stylesim.runtime.resume import find_run, refuse_used_folder, remove_unused_folder, was_used
from stylesim.runtime.settings import check_config, quote_plain_text, register_settings
from stylesim.runtime.sweep_table import write_sweep_tables


def run(command: str) -> None:
    """Run a command as a Hydra application: `conf/<command>.yaml` around `stylesim.<command>.main`.

    An error that the user can correct is printed as a sentence, and the process exits with status 2.
    """
    # With this, Hydra raises every error instead of printing it, and `explain` turns it into a sentence.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends no statistics about a sweep
    JobReturn.return_value = JobReturn.return_value.getter(_return_value)
    register_settings(command)
    # File names need not be valid UTF-8. A full disk has raised an error already, so logging need not report it again.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    logging.raiseExceptions = False
    try:
        sys.argv[1:] = readable_arguments(quote_plain_text(command, sys.argv[1:]))
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(Job(command))()
        finally:
            write_sweep_tables()
    except USER_ERRORS as error:
        sentence = explain(error, command)
        if sentence is None:
            raise
        print(f"stylesim: {sentence}", file=sys.stderr)
        sys.exit(2)


def _return_value(job: JobReturn) -> Any:
    """Return a job's result, or raise its error, without Hydra's line `Error executing job with overrides`."""
    if job.status is JobStatus.COMPLETED:
        return job._return_value
    raise job._return_value


class Job:
    """One Hydra job. It can be pickled, since joblib, submitit and Ray send it to other processes."""

    def __init__(self, command: str) -> None:
        self.command = command
        # Hydra reads these attributes of a task function.
        self.__module__, self.__qualname__, self.__name__ = __name__, command, command

    def __call__(self, cfg: DictConfig) -> Any:
        """Check the configuration, run the command in its run folder, and return its metrics or its objective."""
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
        if not is_main_process():
            logging.getLogger("stylesim").setLevel(logging.WARNING)  # rank 0 reports what concerns all ranks
        cfg = cfg.copy()
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        is_fresh = not was_used(run_dir)
        try:
            expand_home(cfg)
            check_config(cfg, self.command)
            if cfg.get("resume"):
                run_dir = find_run(cfg, run_dir)
                _log_into(run_dir)
            elif is_main_process():
                refuse_used_folder(run_dir, self.command)
            cfg.run_dir = str(run_dir)
            metrics = self._run(cfg, run_dir)
        except Exception as error:
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(run_dir)  # a full disk, as `write` reports it
            sentence = explain(error, self.command)
            if sentence and is_fresh and is_main_process() and HydraConfig.get().mode is not RunMode.MULTIRUN:
                remove_unused_folder(run_dir)
            if run_dir.is_dir():
                _write_to_log_file(sentence or "The command has failed.", None if sentence else error)
            raise
        if is_main_process():
            write_json(run_dir / "metrics.json", metrics)
        return _objective(cfg, metrics)

    def _run(self, cfg: DictConfig, run_dir: Path) -> dict[str, float]:
        if is_main_process():
            write_provenance(run_dir, cfg, self.command)
        follow_rank_zero()
        keep_freed_memory()
        module = f"stylesim.{self.command}"
        with relaunchable(module, run_dir, resumes=bool(cfg.get("resume"))):
            try:
                return importlib.import_module(module).main(cfg)
            except Exception as error:
                if (sentence := lost_rank(error)) is None:
                    raise
                raise sentence from error


def _log_files() -> Iterator[logging.FileHandler]:
    yield from (handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler))


def _log_into(run_dir: Path) -> None:
    """Have the log file that Hydra has configured for its new folder continue in a resumed run's folder."""
    for handler in _log_files():
        handler.close()  # the next message opens the file
        handler.baseFilename = str((run_dir / Path(handler.baseFilename).name).absolute())


def _write_to_log_file(sentence: str, error: Exception | None) -> None:
    """Write the reason why a command ends into its log file only; `run` or Python itself prints it on the console."""
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord(__name__, logging.ERROR, __file__, 0, sentence, None, exc_info)
    for handler in _log_files():
        handler.handle(record)


def _objective(cfg: DictConfig, metrics: dict[str, float]) -> Any:
    """Return all metrics, or the one that a sweeper optimises (`objective=...`)."""
    objective = cfg.get("objective")
    if objective is None:
        return metrics
    if objective not in metrics:
        raise ConfigError(f"objective must be a metric of this run, got {objective!r}.{suggest(objective, metrics)}")
    return metrics[objective]


def write_provenance(run_dir: Path, cfg: DictConfig, command: str) -> None:
    """Write what is needed to repeat a run: configuration, command, commit, versions, machine."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with atomic_path(run_dir / "config.yaml") as partial:  # another rank may be reading the file
        OmegaConf.save(cfg, partial)
    write_json(run_dir / "provenance.json", provenance(command))


def provenance(command: str) -> dict[str, Any]:
    """Return command, commit, package versions and machine as plain values. Imports no package that it names."""
    import platform
    from importlib.metadata import version

    packages = ("stylesim", "torch", "lightning", "webdataset", "open_clip_torch", "timm", "numpy", "pillow")
    hydra_config = HydraConfig.get() if HydraConfig.initialized() else None
    overrides = hydra_config.overrides.task if hydra_config else []
    choices = OmegaConf.to_container(hydra_config.runtime.choices) if hydra_config else {}
    return {
        "command": " ".join(["stylesim", command, *overrides]),
        "overrides": list(overrides),
        "choices": choices,
        "commit": commit(),
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def commit() -> str | None:
    """Return the checkout's commit, with `-dirty` if files differ from it; None outside a checkout."""
    if not (PACKAGE.parents[1] / ".git").exists():  # installed, perhaps inside another repository
        return None
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


@contextmanager
def relaunchable(module: str, run_dir: Path, resumes: bool = False) -> Iterator[None]:
    """Have the ranks that Lightning starts run `python -m <module>` with this job's overrides and run folder.

    On exit, the job's child processes and process group are ended and the process is as it was before, so that the
    next job of a sweep may use another number of devices. Outside Hydra nothing is done.

    Args:
        module: The command's module, such as `stylesim.train`.
        run_dir: The folder of this job.
        resumes: Whether the ranks are to resume the run in `run_dir`.
    """
    if not HydraConfig.initialized():
        yield
        return
    main, state = sys.modules["__main__"], HydraConfig.instance().cfg
    argv, environ = list(sys.argv), dict(os.environ)
    spec, run_dir_before = getattr(main, "__spec__", None), OmegaConf.to_container(state.hydra.run)["dir"]  # type: ignore
    sys.argv[1:] = _arguments_of_a_rank(run_dir if resumes else None)
    main.__spec__ = importlib.util.find_spec(module)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.environ[RANK_ZERO] = str(os.getpid())
    _set_run_dir(state, str(run_dir))
    try:
        yield
    finally:
        end_ranks()
        sys.argv[:], main.__spec__ = argv, spec
        _set_run_dir(state, run_dir_before)
        for name in os.environ.keys() - environ.keys():
            del os.environ[name]
        os.environ.update(environ)


def _arguments_of_a_rank(resumed: Path | None) -> list[str]:
    config = HydraConfig.get()
    folders = [s.path.removeprefix("file://") for s in config.runtime.config_sources if s.provider == "command-line"]
    flags = ["--config-name", str(config.job.config_name)] + [f for p in folders for f in ("--config-dir", p)]
    search = [o for o in config.overrides.hydra if o.startswith("hydra.searchpath=")]
    overrides = [o for o in config.overrides.task if not o.startswith("resume=")]
    # Rank 0 alone decides which run is resumed.
    resume = [f"resume={quote(str(resumed))}"] if resumed else []
    return [*flags, *overrides, *search, "hydra.mode=RUN", *resume]


def _set_run_dir(state: Any, path: str) -> None:
    """Set `hydra.run.dir`, which Lightning passes on to its children; in a sweep it is not the job's folder."""
    OmegaConf.set_readonly(state.hydra, False)
    state.hydra.run.dir = quote_for_lightning(path)
    OmegaConf.set_readonly(state.hydra, True)


def end_ranks() -> None:
    """End the ranks that this job has started, and its process group. Imports no torch."""
    while Watch.running:
        Watch.running.pop().finish()
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
