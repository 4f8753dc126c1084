"""Evaluate an existing encoder, and controls beside it, on retrieval sets.

stylesim evaluate checkpoint=outputs/.../checkpoints/best.safetensors data=stylecross
stylesim evaluate model=frozen_lite0 data=stylecross
stylesim evaluate descriptors=outputs/.../descriptors    again, without loading a model
stylesim evaluate -m model=frozen_lite0,palette          a sweep, which leaves one table
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from pydantic import Field

from stylesim.core.errors import ConfigError
from stylesim.core.files import write_json
from stylesim.core.ranks import is_main_process
from stylesim.core.run_folder import RESULTS_OF_EVALUATION, remove_results
from stylesim.runtime.embedding_run import embedding_options
from stylesim.runtime.evaluation_run import evaluate_and_report
from stylesim.runtime.existence_checks import check_encoders
from stylesim.runtime.launch import run
from stylesim.runtime.resume import comparable_config
from stylesim.runtime.settings import EmbeddingSettings

FINISHED = "finished.json"
"""The file of a run folder that holds configuration and metrics of a finished evaluation."""

log = logging.getLogger(__name__)


class Settings(EmbeddingSettings):
    """The keys of `stylesim evaluate`."""

    descriptors: str | None = Field(
        None, description="The folder descriptors/ of an earlier evaluation; no model is loaded then."
    )
    controls: dict[str, Any] = Field({}, description="More encoders: +model@controls.NAME=frozen_lite0.")
    movements: str = Field(
        "genre:*",
        description="Groups of labels to sum up errors by: a glob over tags, or a table of artists and movements.",
    )
    gaps: bool = Field(False, description="Also write each label's discrimination gap (gaps.csv) and the AUC of pairs.")
    cache: str | None = Field(None, description="A folder in which descriptors are kept for later runs.")
    seed: int = Field(0, description="Seed of all random numbers.")
    objective: str | None = Field(None, description="The metric that a sweeper optimises, such as test/recall@1.")


def main(cfg: DictConfig) -> dict[str, float]:
    """Evaluate an encoder on the retrieval sets of a data module and return its metrics; controls under `<control>/`.

    Writes into `cfg.run_dir`: `descriptors/<encoder>/<images>/`, `per_query.parquet`, `table.csv`, `report.html`, and
    `gaps.csv` if asked for. A run folder that has finished with this configuration is not evaluated again, so a sweep
    that is started again in its folder (`hydra.sweep.dir=...`) continues where it stopped.

    Raises:
        ConfigError: If the data names no retrieval set, or the checkpoint does not exist.
        WeightsError: If weights are missing, or a head is untrained.
        DataError: If images or descriptors are missing.
    """
    run_dir = Path(cfg.run_dir)
    if metrics := _finished_metrics(cfg, run_dir):
        log.info("%s has finished with this configuration already, so nothing is done.", run_dir)
        return metrics
    if is_main_process():
        # Results of another configuration or of an unfinished attempt; descriptors that are evaluated again stay.
        remove_results(
            run_dir, [name for name in RESULTS_OF_EVALUATION if name != "descriptors" or not cfg.descriptors]
        )
    if not cfg.descriptors:
        check_encoders(cfg)
    specs = instantiate(cfg.data).retrieval_sets()
    if not specs:
        raise ConfigError("data must name at least one retrieval set, got none: add entries to data.probes.")
    metrics = evaluate_and_report(
        cfg,
        run_dir,
        specs,
        checkpoint=cfg.checkpoint,
        descriptors=cfg.descriptors,
        colour=cfg.colour,
        **embedding_options(cfg),
    )
    if is_main_process():
        write_json(run_dir / FINISHED, {"configuration": comparable_config(cfg), "metrics": metrics})
    return metrics


def _finished_metrics(cfg: DictConfig, run_dir: Path) -> dict[str, float] | None:
    """Return the metrics of this folder's run; None if it has not finished, or had another configuration."""
    try:
        finished = json.loads((run_dir / FINISHED).read_text())
    except (OSError, ValueError):
        return None
    return finished["metrics"] if comparable_config(finished["configuration"]) == comparable_config(cfg) else None


if __name__ == "__main__":
    run("evaluate")
