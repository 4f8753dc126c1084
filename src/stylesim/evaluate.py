"""python -m stylesim.evaluate: describe, search, score, and show, for an encoder that exists already."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from stylesim.core.errors import StylesimError
from stylesim.core.files import write_json
from stylesim.core.ranks import is_main_process
from stylesim.runtime.config import check_encoders
from stylesim.runtime.evaluation_run import evaluate_and_report
from stylesim.runtime.launch import run

FINISHED = "finished.json"


def main(cfg: DictConfig) -> dict[str, float]:
    """Score an encoder on the retrieval sets of a data module; returns its metrics, controls under `<control>/`.

    Leaves in `cfg.run_dir`: `descriptors/<encoder>/<images>/`, `per_query.parquet`, `table.csv`, `report.html`, and
    `gaps.csv` if asked for. A run folder that has finished with this configuration is not run again: so a sweep that is
    started again in its folder (`hydra.sweep.dir=...`) goes on where it stopped.

    Raises:
        StylesimError: If the weights, the images or the descriptors are missing, or the head has never been trained.
    """
    run_dir = Path(cfg.run_dir)
    if metrics := _metrics_of_before(cfg, run_dir):
        print(f"{run_dir} has finished with this configuration before: nothing to do.", flush=True)
        return metrics
    if is_main_process():
        from stylesim.report.run_folders import METRICS, PER_QUERY

        for name in (FINISHED, METRICS, PER_QUERY):  # of another configuration
            (run_dir / name).unlink(missing_ok=True)
    if not cfg.descriptors:
        check_encoders(cfg)
    specs = instantiate(cfg.data).retrieval_sets()
    if not specs:
        raise StylesimError("This data configuration names no retrieval set: add entries below data.probes.")
    if not cfg.descriptors:
        shutil.rmtree(run_dir / "descriptors", ignore_errors=True)  # of an attempt that has not come to its end
    metrics = evaluate_and_report(
        cfg,
        run_dir,
        specs,
        checkpoint=cfg.checkpoint,
        descriptors=cfg.descriptors,
        device=cfg.device,
        precision=cfg.precision,
        flips=cfg.flips,
        batch_size=cfg.batch_size,
    )
    if is_main_process():
        write_json(run_dir / FINISHED, {"configuration": _compared(cfg), "metrics": metrics})
    return metrics


def _metrics_of_before(cfg: DictConfig, run_dir: Path) -> dict[str, float] | None:
    """What a run of this configuration has left in this folder; None where it has not ended, or was of another one."""
    try:
        before = json.loads((run_dir / FINISHED).read_text())
    except (OSError, ValueError):
        return None
    return before["metrics"] if before["configuration"] == _compared(cfg) else None


def _compared(cfg: DictConfig) -> Any:
    """The configuration as JSON keeps it, without the place of the run."""
    return OmegaConf.to_container(OmegaConf.merge(cfg, {"run_dir": None}), resolve=True)


if __name__ == "__main__":
    run("evaluate")
