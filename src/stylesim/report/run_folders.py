"""RunFolder folders as they lie on disk: what each was asked, what it measured, or why it did not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylesim.core.errors import StylesimError

if TYPE_CHECKING:
    import pandas as pd

    from stylesim.evaluation.evaluate_descriptors import RetrievalResult

METRICS, PER_QUERY, ERROR = "metrics.json", "per_query.parquet", "error.txt"
MODEL = "model"
"""The name of the encoder in question among those of a run; its controls have names of their own."""
_NOT_A_ROW = ("data", "hydra", "launcher", "sweep", "device", "batch_size", "cache", "movements")
"""Overrides that say on what, or how, an encoder is measured, and not which encoder it is."""


@dataclass(frozen=True)
class RunFolder:
    """One run folder. `metrics` are those of the encoder in question: retrieval set -> metric -> value."""

    path: Path
    model: str
    data: str
    encoder_overrides: tuple[str, ...]
    """Those of the command that concern the encoder, `model=...` left out."""
    data_overrides: tuple[str, ...]
    """Those that say which images, and how they are asked: `data.root=...`."""
    metrics: dict[str, dict[str, float]]
    reason: str
    """Why there are no metrics, in a sentence; empty where there are."""

    def per_query(self, name: str) -> pd.DataFrame | None:
        """Values of a retrieval set's queries by metric, indexed by their ids; None where the run has left none."""
        import pandas as pd

        if not (file := self.path / PER_QUERY).is_file():
            return None
        table = pd.read_parquet(file, filters=[("encoder", "==", MODEL), ("set", "==", name)])
        return table.drop(columns=["encoder", "set"]).set_index("id") if len(table) else None


def find_run_folders(folder: Path) -> list[RunFolder]:
    """The evaluations and trainings below a folder, those that ended last being last; unfinished ones come first.

    Raises `StylesimError` where there is none.
    """
    runs = [run for file in sorted(folder.glob("**/.hydra/hydra.yaml")) if (run := _run(file.parents[1]))]
    if not runs:
        raise StylesimError(
            f"There is no run below {folder.absolute()}: name the folder of a sweep, multirun/DATE/TIME-evaluate."
        )
    return sorted(runs, key=lambda run: (run.path / METRICS).stat().st_mtime if run.metrics else 0.0)


def row_names(runs: Sequence[RunFolder]) -> tuple[list[str], list[str]]:
    """A name for the encoder of each run, its model with the overrides that not all have; and those that all have.

    Of the overrides of the data, those count as common that all runs on the same data have.
    """
    common = set.intersection(*(set(run.encoder_overrides) for run in runs))
    asked = {run.data: [set(other.data_overrides) for other in runs if other.data == run.data] for run in runs}
    alike = {data: set.intersection(*overrides) for data, overrides in asked.items()}
    own = [
        sorted(set(run.encoder_overrides) - common) + sorted(set(run.data_overrides) - alike[run.data]) for run in runs
    ]
    names = [" ".join([run.model, *more]) for run, more in zip(runs, own, strict=True)]
    return names, sorted(common.union(*alike.values()))


def write_per_query(folder: Path, results: Mapping[str, Mapping[str, RetrievalResult]]) -> None:
    """Write what the metrics of a run are means of: a line for each encoder, retrieval set and query.

    `results`: encoder -> retrieval set -> its evaluation. A table of several runs needs no more of them than this.
    """
    import pandas as pd

    tables = [
        pd.DataFrame({"encoder": encoder, "set": name, "id": retrieval.queries.ids, **retrieval.per_query})
        for encoder, sets in results.items()
        for name, retrieval in sets.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pd.concat(tables, ignore_index=True).to_parquet(folder / PER_QUERY)


def _run(folder: Path) -> RunFolder | None:
    """The run of a folder; None for that of another application, which has no model or no data."""
    from omegaconf import OmegaConf

    hydra = OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra
    choices, task = hydra.runtime.choices, list(hydra.overrides.task)
    if "model" not in choices or "data" not in choices:
        return None
    concerning = [o for o in task if o.lstrip("+~").split("=")[0].split(".")[0] not in (*_NOT_A_ROW, MODEL)]
    concerning += [o for o in task if o.lstrip("+~").startswith(f"{MODEL}.")]
    data_overrides = tuple(o for o in task if o.lstrip("+~").startswith("data."))
    metrics, reason = _metrics(folder)
    return RunFolder(folder, str(choices.model), str(choices.data), tuple(concerning), data_overrides, metrics, reason)


def _metrics(folder: Path) -> tuple[dict[str, dict[str, float]], str]:
    if (error := folder / ERROR).is_file():
        return {}, error.read_text().strip()
    try:
        flat = json.loads((folder / METRICS).read_text())
    except FileNotFoundError:
        return {}, f"it runs still, or was stopped: there is no {METRICS}"
    except ValueError:
        return {}, f"its {METRICS} cannot be read"
    metrics: dict[str, dict[str, float]] = {}
    for key, value in flat.items():
        name, _, metric = key.partition("/")
        if "/" not in metric:  # a control's has its own name in front
            metrics.setdefault(name, {})[metric] = float(value)
    return metrics, "" if metrics else "it measured nothing"
