"""Starts an entry point under Hydra: checks the configuration, owns the run folder, and makes DDP right inside a sweep.

Lightning starts the other ranks of a DDP job by repeating the command line of the process. In a sweep that command
line is the *sweep*, and under joblib or submitit it is not even stylesim's; `relaunchable` says, for the time of one
job, what its ranks are to be started with.
"""

from __future__ import annotations

import importlib
import importlib.util
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
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stylesim.core.errors import StylesimError
from stylesim.core.files import atomic_path, write_json
from stylesim.core.ranks import is_main_process
from stylesim.core.targets import PACKAGE, check_config, conf_dir
from stylesim.runtime.rank_monitor import RANK_ZERO, Watch, follow_rank_zero, lost_rank
from stylesim.runtime.resume import find_run


def run(name: str) -> None:
    """The command `python -m stylesim.<name>`: Hydra with `conf/<name>.yaml` around `stylesim.<name>.main`."""
    # Hydra would print a traceback for every error of the user's; here they come back and are told as sentences.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # where Ray launches a sweep, nobody is told
    task = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(Job(name))
    try:
        task()
    except (StylesimError, HydraException, OmegaConfBaseException) as error:
        sentence = explain(error)
        if sentence is None:
            raise
        print(f"stylesim: {sentence}", file=sys.stderr)
        sys.exit(2)


def explain(error: BaseException) -> str | None:
    """What to tell the user, or None for an error that is not the user's (it keeps its traceback)."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    ours = next((e for e in chain if isinstance(e, StylesimError)), None)
    if ours is not None:
        return str(ours)
    if isinstance(error, InstantiationException):
        return None
    text = " ".join(line for e in chain[:2] for line in str(e).splitlines()[:1])
    if isinstance(error, MissingConfigException) and "hydra/launcher" in text + str(error.missing_cfg_file):
        text += "\nThe launcher is an extra: pip install 'stylesim[launchers]', or 'stylesim[ray]'."
    elif isinstance(error, MissingConfigException) and "hydra/sweeper" in text + str(error.missing_cfg_file):
        text += "\nThe sweeper is an extra: pip install 'stylesim[optuna]'."
    elif "Could not override" in text:
        text += f"\nEvery key and its value: python -m {_module()} --cfg job"
    return text


class Job:
    """One Hydra job. Picklable by reference, since joblib and submitit send it to other processes."""

    def __init__(self, name: str) -> None:
        self.name = name
        # Hydra asks a task function for these.
        self.__module__, self.__qualname__, self.__name__ = __name__, name, name

    def __call__(self, cfg: DictConfig) -> Any:
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
        cfg = cfg.copy()
        check_config(cfg)
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        if cfg.get("resume"):
            run_dir = find_run(cfg, run_dir)
        cfg.run_dir = str(run_dir)
        if is_main_process():
            write_provenance(run_dir, cfg)
        follow_rank_zero()
        main = importlib.import_module(f"stylesim.{self.name}").main
        with relaunchable(f"stylesim.{self.name}", run_dir, resumes=bool(cfg.get("resume"))):
            try:
                metrics = main(cfg)
            except Exception as error:
                if (sentence := lost_rank(error)) is None:
                    raise
                raise sentence from error
        if is_main_process():
            write_json(run_dir / "metrics.json", metrics)
        return _objective(cfg, metrics)


def _objective(cfg: DictConfig, metrics: dict[str, float]) -> Any:
    """All metrics, or the one that a sweeper optimises (`objective=...`)."""
    if not cfg.get("objective"):
        return metrics
    if cfg.objective not in metrics:
        raise StylesimError(f"objective={cfg.objective} is no metric of this run. Figures: {', '.join(metrics)}.")
    return metrics[cfg.objective]


def write_provenance(run_dir: Path, cfg: DictConfig) -> None:
    """What a reader of the metrics needs to repeat them: configuration, command, commit, versions, machine."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with atomic_path(run_dir / "config.yaml") as partial:  # another rank may be reading the file
        OmegaConf.save(cfg, partial)
    write_json(run_dir / "provenance.json", provenance())


def provenance() -> dict[str, Any]:
    """Command, commit, package versions and the machine, as plain values; quick (nothing is imported)."""
    import platform
    from importlib.metadata import version

    packages = ("stylesim", "torch", "lightning", "webdataset", "open_clip_torch", "timm", "numpy", "pillow")
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return {
        "command": " ".join(["python -m", _module(), *overrides]),
        "commit": commit(),
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def commit() -> str | None:
    """The checkout's commit, with `-dirty` where files differ from it; None outside a checkout."""
    if not (PACKAGE.parents[1] / ".git").exists():  # installed, perhaps below somebody else's repository
        return None
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec is not None and spec.name.startswith("stylesim") else "stylesim.train"


@contextmanager
def relaunchable(module: str, run_dir: Path, resumes: bool = False) -> Iterator[None]:
    """While this is open, Lightning's children run `python -m <module>` with this job's overrides and run folder.

    On leaving, whatever the job left is taken down (children, process group) and the process is as before: the next
    job of a sweep may use another number of devices. A no-op outside Hydra, and in a process that is itself a child.
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
        _take_down()
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
    # Which run is resumed is decided once, by rank 0.
    resume = [f"resume='{resumed}'"] if resumed else []
    return [*flags, *overrides, *search, "hydra.mode=RUN", *resume]


def _set_run_dir(state: Any, path: str) -> None:
    """Lightning passes `hydra.run.dir` on to its children; in a sweep that is not where the job runs."""
    OmegaConf.set_readonly(state.hydra, False)
    state.hydra.run.dir = path
    OmegaConf.set_readonly(state.hydra, True)


def _take_down() -> None:
    """End the children of this job and its process group. Torch is asked only if the job has imported it."""
    while Watch.running:
        Watch.running.pop().finish()
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
