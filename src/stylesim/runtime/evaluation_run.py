"""Evaluate an encoder and its controls on retrieval sets, and write what a run folder shows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from stylesim.core.ranks import is_main_process
from stylesim.runtime.rank_monitor import stop_watching

if TYPE_CHECKING:
    from stylesim.encoders import StyleEncoder
    from stylesim.evaluation.evaluate_descriptors import RetrievalResult
    from stylesim.evaluation.retrieval_spec import RetrievalSpec
    from stylesim.retrieval.readouts import Readout


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


def _write_gaps(run_dir: Path, results: Mapping[str, Mapping[str, RetrievalResult]], readout: Readout | None) -> None:
    """How well each gallery's labels are separated: `gaps.csv` for every label, and metrics of each set."""
    import pandas as pd

    from stylesim.evaluation.label_separation import label_separation

    tables = []
    for encoder, sets in results.items():
        for name, retrieval in sets.items():
            found = label_separation(retrieval.gallery, retrieval.spec.relevant, readout)
            retrieval.metrics.update(found.metrics)
            tables.append(found.labels.assign(encoder=encoder, set=name))
    run_dir.mkdir(parents=True, exist_ok=True)
    pd.concat(tables, ignore_index=True).to_csv(run_dir / "gaps.csv", index=False)


def _encoders(cfg: DictConfig, checkpoint: str | Path | None) -> dict[str, Callable[[], StyleEncoder]]:
    """The encoder in question first, under the name `model`, then its controls; none is loaded before its turn."""
    from stylesim.encoders.weights.checkpoint import load_checkpoint

    load = partial(load_checkpoint, checkpoint) if checkpoint else partial(instantiate, cfg.model)
    return {"model": load} | {name: partial(instantiate, control) for name, control in cfg.controls.items()}


def _flat(results: Mapping[str, Mapping[str, RetrievalResult]]) -> dict[str, float]:
    return {
        f"{'' if encoder == 'model' else encoder + '/'}{name}/{metric}": float(value)
        for encoder, sets in results.items()
        for name, retrieval in sets.items()
        for metric, value in retrieval.metrics.items()
    }
