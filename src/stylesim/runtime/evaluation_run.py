"""Evaluate an encoder and its controls on retrieval sets, and write the results into the run folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from stylesim.core.files import write_text
from stylesim.core.ranks import is_main_process
from stylesim.runtime.rank_monitor import stop_watching

if TYPE_CHECKING:
    from stylesim.core.images import Colour
    from stylesim.encoders import StyleEncoder
    from stylesim.evaluation.evaluate_descriptors import RetrievalResult
    from stylesim.evaluation.retrieval_spec import RetrievalSpec
    from stylesim.retrieval.readouts import Readout

    Results = Mapping[str, Mapping[str, RetrievalResult]]

log = logging.getLogger(__name__)


def evaluate_and_report(
    cfg: DictConfig,
    run_dir: Path,
    specs: Mapping[str, RetrievalSpec],
    *,
    checkpoint: str | Path | None = None,
    descriptors: str | Path | None = None,
    loggers: list[Any] | None = None,
    colour: Colour | None = None,
    rank: int = 0,
    world: int = 1,
    **embedding: Any,
) -> dict[str, float]:
    """Evaluate the encoder and its controls one after the other, then write table and report.

    Args:
        cfg: The composed configuration: `model`, `controls`, and optionally `readout`, `movements`, `cache`, `gaps`.
        run_dir: The folder that receives descriptors, tables and report.
        specs: The retrieval sets by name.
        checkpoint: Weights of a run, which take the place of `model`.
        descriptors: The folder `descriptors` of an earlier evaluation; no model is loaded then.
        loggers: Lightning loggers that receive the report's plots.
        colour: What to do with embedded colour profiles (see `Preprocessing`); None keeps each encoder's own setting.
        rank: This process's number among `world` processes, which share the work.
        world: The number of processes.
        **embedding: Options of `evaluation.embed.embed`.

    Returns:
        Metrics as `<set>/<metric>`; those of controls as `<control>/<set>/<metric>`.

    Raises:
        WeightsError: If a style head is untrained and `allow_untrained` is false.
    """
    from stylesim.evaluation.evaluate import evaluate
    from stylesim.report.label_errors import read_movements

    movements = read_movements(cfg.get("movements", "genre:*"))
    readout = instantiate(cfg.readout) if "readout" in cfg else None
    folder = Path(descriptors) if descriptors else run_dir / "descriptors"
    results = {}
    for name, load in _encoder_loaders(cfg, checkpoint).items():
        encoder = None if descriptors else load()
        if encoder is not None:
            encoder.use_colour(colour)
            if not cfg.get("allow_untrained", True):
                encoder.provenance.require_trained_head()
            _tell_provenance(name, encoder)
        results[name] = evaluate(
            encoder, specs, folder / name, readout=readout, cache=cfg.get("cache"), rank=rank, world=world, **embedding
        )
    if is_main_process():
        stop_watching()  # the other ranks have done their share, and may end in any order
        from stylesim.report.pages.run_report import write_run_report
        from stylesim.report.run_folders import write_encoders, write_per_query

        if cfg.get("gaps"):
            _write_gaps(run_dir, results, readout)
        write_encoders(run_dir, results)
        write_per_query(run_dir, results)
        write_run_report(run_dir, results, movements=movements, loggers=loggers or [])
    return _flat_metrics(results)


def _encoder_loaders(cfg: DictConfig, checkpoint: str | Path | None) -> dict[str, Callable[[], StyleEncoder]]:
    """Return how to load each encoder: the evaluated one first, as `model`, then the controls by their names."""
    from stylesim.encoders.weights.checkpoint import load_checkpoint

    load = partial(load_checkpoint, checkpoint) if checkpoint else partial(instantiate, cfg.model)
    return {"model": load} | {name: partial(instantiate, control) for name, control in cfg.controls.items()}


def _tell_provenance(name: str, encoder: StyleEncoder) -> None:
    provenance = encoder.provenance
    log.info("%s: %s, weights: %s", name, provenance.name, provenance.weights)
    if name == "model" and provenance.weights not in ("none", "random"):
        unknown = "unknown; the query images may be among them"
        log.info("its training images: %s", provenance.trained_on or unknown)


def _write_gaps(run_dir: Path, results: Results, readout: Readout | None) -> None:
    """Write how well each gallery's labels are separated into `gaps.csv`, and add the metrics of each set."""
    import pandas as pd

    from stylesim.evaluation.label_separation import label_separation

    tables = []
    for encoder, sets in results.items():
        for name, retrieval in sets.items():
            separation = label_separation(retrieval.gallery, retrieval.spec.relevant, readout)
            retrieval.metrics.update(separation.metrics)
            tables.append(separation.labels.assign(encoder=encoder, set=name))
    write_text(run_dir / "gaps.csv", pd.concat(tables, ignore_index=True).to_csv(index=False, lineterminator="\n"))


def _flat_metrics(results: Results) -> dict[str, float]:
    return {
        f"{'' if encoder == 'model' else encoder + '/'}{name}/{metric}": float(value)
        for encoder, sets in results.items()
        for name, retrieval in sets.items()
        for metric, value in retrieval.metrics.items()
    }
