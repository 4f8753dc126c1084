"""python -m stylesim.evaluate: describe, search, score, and show, for an encoder that exists already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from stylesim.config import check_encoders
from stylesim.errors import StylesimError
from stylesim.launch import is_main_process, run

if TYPE_CHECKING:
    from stylesim.encoders import StyleEncoder
    from stylesim.retrieval.evaluate import Retrieval
    from stylesim.retrieval.spec import RetrievalSpec


def main(cfg: DictConfig) -> dict[str, float]:
    """Score an encoder on the retrieval sets of a data module; returns its figures, controls under `<control>/`.

    Leaves in `cfg.run_dir`: `descriptors/<encoder>/<images>/`, `table.csv`, `report.html`.

    Raises:
        StylesimError: If the weights, the images or the descriptors are missing, or the head has never been trained.
    """
    if cfg.checkpoint and not Path(cfg.checkpoint).is_file():
        raise StylesimError(
            f"checkpoint={cfg.checkpoint}: there is no such file. Runs leave checkpoints/best.safetensors."
        )
    if not (cfg.checkpoint or cfg.descriptors):
        check_encoders(cfg)
    specs = instantiate(cfg.data).retrieval_sets()
    if not specs:
        raise StylesimError("This data configuration names no retrieval set: add entries below data.probes.")
    return evaluate_and_report(
        cfg,
        Path(cfg.run_dir),
        specs,
        checkpoint=cfg.checkpoint,
        descriptors=cfg.descriptors,
        device=cfg.device,
        precision=cfg.precision,
        batch_size=cfg.batch_size,
    )


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
    from stylesim.measure import measure

    folder = Path(descriptors) if descriptors else run_dir / "descriptors"
    results = {}
    for name, load in _encoders(cfg, checkpoint).items():
        encoder = None if descriptors else load()
        if encoder is not None and not (encoder.provenance.trained_head or cfg.get("allow_untrained", True)):
            raise StylesimError(
                f"The style head of {encoder.provenance.name} has never been trained, so its score says nothing."
                " Give a trained one with checkpoint=PATH, or ask for this all the same with allow_untrained=true."
            )
        if encoder is not None and is_main_process():
            print(f"{name}: {encoder.provenance.name}, {encoder.provenance.weights}", flush=True)
        results[name] = measure(encoder, specs, folder / name, rank=rank, world=world, **describing)
    if is_main_process():
        from stylesim.report.run import write_run_report

        write_run_report(run_dir, results, loggers=loggers or [])
    return _flat(results)


def _encoders(cfg: DictConfig, checkpoint: str | Path | None) -> dict[str, Callable[[], StyleEncoder]]:
    """The encoder in question first, under the name `model`, then its controls; none is loaded before its turn."""
    from stylesim.encoders.checkpoint import load_checkpoint

    load = partial(load_checkpoint, checkpoint) if checkpoint else partial(instantiate, cfg.model)
    return {"model": load} | {name: partial(instantiate, control) for name, control in cfg.controls.items()}


def _flat(results: Mapping[str, Mapping[str, Retrieval]]) -> dict[str, float]:
    return {
        f"{'' if encoder == 'model' else encoder + '/'}{name}/{figure}": float(value)
        for encoder, sets in results.items()
        for name, retrieval in sets.items()
        for figure, value in retrieval.figures.items()
    }


if __name__ == "__main__":
    run("evaluate")
