"""python -m stylesim.evaluate: describe, search, score, and show, for an encoder that exists already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from stylesim.core.errors import StylesimError
from stylesim.core.files import write_json
from stylesim.core.ranks import is_main_process
from stylesim.runtime.config import check_encoders
from stylesim.runtime.launch import run
from stylesim.runtime.rank_monitor import stop_watching

if TYPE_CHECKING:
    from stylesim.encoders import StyleEncoder
    from stylesim.evaluation.retrieval import Retrieval
    from stylesim.evaluation.spec import RetrievalSpec
    from stylesim.retrieval.readouts import Readout

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


def evaluate_and_report(
    cfg: DictConfig,
    run_dir: Path,
    specs: Mapping[str, RetrievalSpec],
    *,
    checkpoint: str | Path | None = None,
    descriptors: str | Path | None = None,
    loggers: list[Any] | None = None,
    rank: int = 0,
    world: int = 1,
    **describing: Any,
) -> dict[str, float]:
    """Measure the encoder and its controls, one after the other, then write table and report into the run folder."""
    from stylesim.evaluation.evaluate import evaluate
    from stylesim.report.label_errors import read_movements

    movements = read_movements(cfg.get("movements", "genre:*"))
    readout = instantiate(cfg.readout) if "readout" in cfg else None
    folder = Path(descriptors) if descriptors else run_dir / "descriptors"
    results = {}
    for name, load in _encoders(cfg, checkpoint).items():
        encoder = None if descriptors else load()
        if encoder is not None and not cfg.get("allow_untrained", True):
            encoder.provenance.require_trained_head()
        if encoder is not None and is_main_process():
            print(f"{name}: {encoder.provenance.name}, {encoder.provenance.weights}", flush=True)
            if name == "model" and encoder.provenance.weights not in ("none", "random"):
                images = (
                    encoder.provenance.trained_on or "not known, nor whether the pictures queried here are among them"
                )
                print(f"its training images: {images}", flush=True)
        results[name] = evaluate(
            encoder, specs, folder / name, readout=readout, cache=cfg.get("cache"), rank=rank, world=world, **describing
        )
    if is_main_process():
        stop_watching()  # the other ranks have given their share, and may end as they like
        from stylesim.report.run_folders import write_per_query
        from stylesim.report.run_report import write_run_report

        if cfg.get("gaps"):
            _write_gaps(run_dir, results, readout)
        write_per_query(run_dir, results)
        write_run_report(run_dir, results, movements=movements, loggers=loggers or [])
    return _flat(results)


def _write_gaps(run_dir: Path, results: Mapping[str, Mapping[str, Retrieval]], readout: Readout | None) -> None:
    """How well each gallery's labels are separated: `gaps.csv` for every label, and metrics of each set."""
    import pandas as pd

    from stylesim.evaluation.discrimination import separation

    tables = []
    for encoder, sets in results.items():
        for name, retrieval in sets.items():
            found = separation(retrieval.gallery, retrieval.spec.relevant, readout)
            retrieval.metrics.update(found.metrics)
            tables.append(found.labels.assign(encoder=encoder, set=name))
    run_dir.mkdir(parents=True, exist_ok=True)
    pd.concat(tables, ignore_index=True).to_csv(run_dir / "gaps.csv", index=False)


def _encoders(cfg: DictConfig, checkpoint: str | Path | None) -> dict[str, Callable[[], StyleEncoder]]:
    """The encoder in question first, under the name `model`, then its controls; none is loaded before its turn."""
    from stylesim.encoders.weights.checkpoint import load_checkpoint

    load = partial(load_checkpoint, checkpoint) if checkpoint else partial(instantiate, cfg.model)
    return {"model": load} | {name: partial(instantiate, control) for name, control in cfg.controls.items()}


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


def _flat(results: Mapping[str, Mapping[str, Retrieval]]) -> dict[str, float]:
    return {
        f"{'' if encoder == 'model' else encoder + '/'}{name}/{metric}": float(value)
        for encoder, sets in results.items()
        for name, retrieval in sets.items()
        for metric, value in retrieval.metrics.items()
    }


if __name__ == "__main__":
    run("evaluate")
