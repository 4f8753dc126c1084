"""Read finished and unfinished run folders: what each run evaluated, and its metrics or why it has none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylesim.core.errors import ConfigError
from stylesim.core.files import atomic_path, write_json

if TYPE_CHECKING:
    import pandas as pd

    from stylesim.evaluation.evaluate_descriptors import RetrievalResult

METRICS, PER_QUERY, ERROR = "metrics.json", "per_query.parquet", "error.txt"
ENCODERS = "encoders.json"
"""What a run has evaluated: name in the run -> the encoder's provenance and preprocessing."""
MODEL = "model"
"""Name of the evaluated encoder in the results of a run; controls have other names."""
_INSTEAD_OF_MODEL = ("checkpoint", "descriptors")
"""Keys that take the place of `model`."""
_NOT_OF_THE_ENCODER = ("data", "hydra", "launcher", "sweep", "device", "batch_size", "cache", "movements")
"""Overrides that do not change the encoder, only the images or how the run is executed."""


@dataclass(frozen=True)
class RunFolder:
    """One run folder.

    Attributes:
        path: The folder.
        model: Option of the config group `model`. If `checkpoint` or `descriptors` took its place, the encoder's
            own name, or "" if such a run has not come far enough to tell.
        data: Option of the config group `data`.
        encoder_overrides: Overrides of the command that change the encoder, without `model=...`.
        data_overrides: Overrides that change the images or their labels, such as `data.root=...`.
        metrics: Metrics of the evaluated encoder: retrieval set, then metric.
        reason: A sentence that says why there are no metrics; empty if there are.
    """

    path: Path
    model: str
    data: str
    encoder_overrides: tuple[str, ...]
    data_overrides: tuple[str, ...]
    metrics: dict[str, dict[str, float]]
    reason: str

    def per_query(self, retrieval_set: str) -> pd.DataFrame | None:
        """Return the metrics of each query of a retrieval set, indexed by query id; None if the run saved none."""
        import pandas as pd

        if not (file := self.path / PER_QUERY).is_file():
            return None
        table = pd.read_parquet(file, filters=[("encoder", "==", MODEL), ("set", "==", retrieval_set)])
        return table.drop(columns=["encoder", "set"]).set_index("id") if len(table) else None


def find_run_folders(folder: Path) -> list[RunFolder]:
    """Find the evaluations and training runs below a folder.

    Returns:
        The runs without metrics first, then the others in the order in which they finished.

    Raises:
        ConfigError: If there is none.
    """
    runs = [run for file in sorted(folder.glob("**/.hydra/hydra.yaml")) if (run := _read_run_folder(file.parents[1]))]
    if not runs:
        raise ConfigError(
            f"There is no run below {folder.absolute()}. Give the folder of a sweep, such as"
            " multirun/DATE/TIME-evaluate."
        )
    return sorted(runs, key=lambda run: (run.path / METRICS).stat().st_mtime if run.metrics else 0.0)


def name_rows(runs: Sequence[RunFolder]) -> tuple[list[str], list[str]]:
    """Name the encoder of each run so that different encoders have different names.

    Returns:
        For each run, its encoder followed by those of its overrides that not all runs have; and the overrides that all
        runs have. An override of the data set counts as common if all runs on the same data set have it.
    """
    common = set.intersection(*(set(run.encoder_overrides) for run in runs))
    common_by_data = {
        run.data: set.intersection(*(set(other.data_overrides) for other in runs if other.data == run.data))
        for run in runs
    }
    names = []
    for run in runs:
        own = sorted(set(run.encoder_overrides) - common)
        own_data = sorted(set(run.data_overrides) - common_by_data[run.data])
        names.append(" ".join(filter(None, [run.model, *own, *own_data])) or "checkpoint")
    return names, sorted(common.union(*common_by_data.values()))


def write_encoders(folder: Path, results: Mapping[str, Mapping[str, RetrievalResult]]) -> None:
    """Write which encoders a run has evaluated to `encoders.json`; arguments as for `write_per_query`."""
    sets = {name: next(iter(retrievals.values())) for name, retrievals in results.items() if retrievals}
    write_json(folder / ENCODERS, {name: retrieval.queries.meta.get("encoder") for name, retrieval in sets.items()})


def write_per_query(folder: Path, results: Mapping[str, Mapping[str, RetrievalResult]]) -> None:
    """Write the metrics of each query to `per_query.parquet`: a row for each encoder, retrieval set and query.

    `read_benchmark` reads these files to compute intervals and to compare encoders.

    Args:
        folder: The run folder.
        results: The results by encoder, then by retrieval set.
    """
    import pandas as pd

    tables = [
        pd.DataFrame({"encoder": encoder, "set": name, "id": retrieval.queries.ids, **retrieval.per_query})
        for encoder, sets in results.items()
        for name, retrieval in sets.items()
    ]
    with atomic_path(folder / PER_QUERY) as partial:
        pd.concat(tables, ignore_index=True).to_parquet(partial)


def _read_run_folder(folder: Path) -> RunFolder | None:
    """Read one run folder; None if it belongs to a command that has no model or no data set."""
    from omegaconf import OmegaConf

    hydra = OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra
    choices, overrides = hydra.runtime.choices, list(hydra.overrides.task)
    with suppress(OSError, ValueError, KeyError):  # Hydra overwrites its files even for a command that is then refused
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        choices, overrides = provenance["choices"], provenance["overrides"]
    if "model" not in choices or "data" not in choices:
        return None
    keys = {override: override.lstrip("+~").partition("=")[0] for override in overrides}
    instead = {keys[o]: o.partition("=")[2] for o in overrides if keys[o] in _INSTEAD_OF_MODEL}
    model = _encoder_name(folder, instead.get("descriptors")) if instead else str(choices["model"])
    of_encoder = [o for o in overrides if keys[o].split(".")[0] not in (*_NOT_OF_THE_ENCODER, MODEL)]
    of_encoder += [o for o in overrides if keys[o].startswith(f"{MODEL}.")]
    of_data = [o for o in overrides if keys[o].startswith("data.")]
    metrics, reason = _read_metrics(folder)
    return RunFolder(folder, model, str(choices["data"]), tuple(of_encoder), tuple(of_data), metrics, reason)


def _encoder_name(folder: Path, descriptors: str | None) -> str:
    """Return the name of the encoder that a run has evaluated instead of `model`; "" if it has left none."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        return json.loads((folder / ENCODERS).read_text(encoding="utf-8"))[MODEL]["name"]
    # Runs of earlier versions have no such file.
    sets = Path(descriptors.strip("'\"") if descriptors else folder / "descriptors") / MODEL
    for meta in sorted(sets.glob("*/meta.json")):
        with suppress(OSError, ValueError, LookupError, TypeError):
            return json.loads(meta.read_text(encoding="utf-8"))["encoder"]["name"]
    return ""


def _read_metrics(folder: Path) -> tuple[dict[str, dict[str, float]], str]:
    """Return the metrics of the evaluated encoder, or the reason why there are none."""
    if (error := folder / ERROR).is_file():
        return {}, error.read_text(encoding="utf-8").strip()
    try:
        flat = json.loads((folder / METRICS).read_text())
    except FileNotFoundError:
        return {}, f"it is still running or was stopped: there is no {METRICS}"
    except ValueError:
        return {}, f"its {METRICS} cannot be read"
    metrics: dict[str, dict[str, float]] = {}
    for key, value in flat.items():
        name, _, metric = key.partition("/")
        if "/" not in metric:  # metrics of a control start with its name
            metrics.setdefault(name, {})[metric] = float(value)
    return metrics, "" if metrics else "it evaluated no retrieval set"
