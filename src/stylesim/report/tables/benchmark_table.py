"""Combine the run folders of a sweep into one table of encoders, beside the metrics of the CSD paper.

This needs no model, so the table can be rebuilt at any time, even if runs of the sweep are unfinished or have failed.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from stylesim.core.errors import ConfigError
from stylesim.report.run_folders import RunFolder, find_run_folders, name_rows

if TYPE_CHECKING:
    import pandas as pd

    from stylesim.evaluation.statistics import PairedDifference

MAIN_METRIC = "recall@1"
"""The metric by which encoders are compared. It equals the paper's mAP@1."""

Column = tuple[str, str]
"""A retrieval set and a metric."""


@dataclass(frozen=True)
class BenchmarkCell:
    """One metric of one encoder, as a fraction.

    Attributes:
        ours: The value that a run measured.
        interval: Lower and upper end of its 95 % bootstrap interval.
        paper: The value that the paper reports.
    """

    ours: float | None = None
    interval: tuple[float, float] | None = None
    paper: float | None = None

    @property
    def difference(self) -> float | None:
        """`ours` minus `paper`."""
        return None if self.ours is None or self.paper is None else self.ours - self.paper


@dataclass(frozen=True)
class BenchmarkRow:
    """An encoder: its name, its title in the paper (its name if the paper does not have it), and its metrics."""

    name: str
    title: str
    cells: Mapping[Column, BenchmarkCell]


@dataclass(frozen=True)
class EncoderComparison:
    """Two encoders on the queries of a retrieval set that both have evaluated.

    Attributes:
        set: The retrieval set.
        name: The row that is compared.
        baseline: The row it is compared with.
        queries: Number of queries.
        difference: `baseline` minus `name` in `MAIN_METRIC`.
    """

    set: str
    name: str
    baseline: str
    queries: int
    difference: PairedDifference


@dataclass(frozen=True)
class BenchmarkTable:
    """The table.

    Attributes:
        columns: Retrieval sets and metrics.
        rows: Encoders.
        comparisons: The encoders of each retrieval set compared with its best or with a chosen one.
        missing: A sentence for each result that is missing.
        common_overrides: Overrides that all runs share.
    """

    columns: Sequence[Column]
    rows: Sequence[BenchmarkRow]
    comparisons: Sequence[EncoderComparison]
    missing: Sequence[str]
    common_overrides: Sequence[str]

    def best(self, column: Column) -> float | None:
        """Return the highest measured value of a column; None if fewer than two encoders have one."""
        values = [cell.ours for row in self.rows if (cell := row.cells.get(column)) and cell.ours is not None]
        return max(values) if len(values) > 1 else None


def read_benchmark(folder: Path, metrics: Sequence[str] = (MAIN_METRIC,), against: str | None = None) -> BenchmarkTable:
    """Combine the runs below `folder` into one table.

    Retrieval sets for which the paper reports metrics get the columns of its table 1, and the paper's encoders get a
    row even if they have not been run. If two runs evaluated the same encoder on the same set, the later one counts.

    Args:
        folder: Folder of a sweep, or any folder with run folders below it.
        metrics: Columns of retrieval sets that are not in the paper.
        against: The row with which the others are compared; by default the best one of each retrieval set.

    Returns:
        The table.

    Raises:
        ConfigError: If there is no run, if no run has any of `metrics`, or if `against` is not a row.
    """
    runs, paper = _RunsByRow(find_run_folders(folder)), paper_metrics()
    paper_columns = list(dict.fromkeys(column for _, cells in paper.values() for column in cells))
    paper_sets = list(dict.fromkeys(name for name, _ in paper_columns))
    sets = runs.sets(paper_sets)
    columns = [
        (name, metric)
        for name in sets
        for metric in [m for s, m in paper_columns if s == name] or [m for m in metrics if runs.has(name, m)]
    ]
    if not columns and runs.finished:
        known = sorted({metric for run in runs.runs for values in run.metrics.values() for metric in values})
        raise ConfigError(f"metrics: no run has {' or '.join(metrics)}; the metrics are {', '.join(known)}.")
    if against is not None and against not in runs.rows:
        raise ConfigError(f"against={against!r} is not a row; the rows are {', '.join(runs.rows)}.")
    shared_sets = [name for name in sets if name in paper_sets]
    not_run = [model for model in paper if shared_sets and model not in runs.models.values()]
    models = {name: name for name in not_run} | runs.models
    rows = [_build_row(name, model, paper.get(model), columns, runs) for name, model in models.items()]
    rows.sort(key=lambda row: _sort_key(row, models[row.name], list(paper) if shared_sets else []))
    comparisons = [comparison for name in sets for comparison in _compare(name, runs, against)]
    missing = runs.missing(shared_sets) + ([f"not run: {', '.join(not_run)}"] if not_run else [])
    return BenchmarkTable(columns, rows, comparisons, missing, name_rows(runs.runs)[1])


def paper_metrics() -> dict[str, tuple[str, dict[Column, float]]]:
    """Return table 1 of the paper (arXiv 2404.01292).

    Returns:
        For each option of the config group `model`: its title in the paper and its metrics as fractions.
    """
    table = {}
    with files("stylesim.report.tables").joinpath("paper_table1.csv").open() as file:
        for line in csv.DictReader(file):
            model, title = line.pop("model"), f"{line.pop('method')} {line.pop('backbone')}"
            cells = {}
            for key, value in line.items():
                name, _, metric = key.partition("_")
                if value:
                    cells[name, f"paper_{metric}" if metric.startswith("map") else metric] = float(value) / 100
            table[model] = (title, cells)
    return table


@dataclass
class _RunsByRow:
    """Run folders, looked up by row and retrieval set."""

    runs: list[RunFolder]
    _per_query: dict[Column, pd.DataFrame | None] = field(default_factory=dict)

    @cached_property
    def named(self) -> list[tuple[str, RunFolder]]:
        """Each run with the name of its row."""
        return list(zip(name_rows(self.runs)[0], self.runs, strict=True))

    @cached_property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self.named))

    @cached_property
    def models(self) -> dict[str, str]:
        """The model of each row."""
        return {name: run.model for name, run in self.named}

    @cached_property
    def finished(self) -> dict[tuple[str, str], RunFolder]:
        """The run that has the metrics of a row and a retrieval set; of several, the latest."""
        return {(row, name): run for row, run in self.named for name in run.metrics}

    def sets(self, paper_sets: Sequence[str]) -> list[str]:
        """Return the retrieval sets that have metrics or belong to the paper and were tried, the paper's sets first."""
        tried = {run.data for run in self.runs}
        evaluated = dict.fromkeys(name for run in self.runs for name in run.metrics)
        of_paper = [name for name in paper_sets if name in tried or name in evaluated]
        return of_paper + [name for name in evaluated if name not in paper_sets]

    def has(self, name: str, metric: str) -> bool:
        return any(metric in run.metrics.get(name, {}) for run in self.runs)

    def per_query(self, row: str, name: str) -> pd.DataFrame | None:
        """Return the metrics of each query, which are read from disk only once."""
        if (row, name) not in self._per_query:
            run = self.finished.get((row, name))
            self._per_query[row, name] = run.per_query(name) if run else None
        return self._per_query[row, name]

    def missing(self, sets: Sequence[str]) -> list[str]:
        """Return a sentence for each run without metrics and each set that a row did not run.

        A run is left out if another run of the same row and data set has metrics.
        """
        done = {(row, run.data) for row, run in self.named if run.metrics}
        tried = {(row, run.data) for row, run in self.named} | self.finished.keys()
        sentences = [
            f"{row}, {run.data}: {run.reason} ({run.path})"
            for row, run in self.named
            if not run.metrics and (row, run.data) not in done
        ]
        sentences += [f"{row}, {name}: not run" for row in self.rows for name in sets if (row, name) not in tried]
        return sorted(sentences)


def _build_row(
    name: str, model: str, paper: tuple[str, dict[Column, float]] | None, columns: Sequence[Column], runs: _RunsByRow
) -> BenchmarkRow:
    from stylesim.evaluation.statistics import bootstrap_interval

    title = name if paper is None else paper[0] + name.removeprefix(model)
    cells = {}
    for column in columns:
        retrieval_set, metric = column
        run = runs.finished.get((name, retrieval_set))
        ours = run.metrics[retrieval_set].get(metric) if run else None
        per_query = runs.per_query(name, retrieval_set)
        interval = None
        if ours is not None and per_query is not None and metric in per_query:
            interval = bootstrap_interval(per_query[metric].to_numpy())
        cells[column] = BenchmarkCell(ours, interval, paper[1].get(column) if paper else None)
    return BenchmarkRow(name, title, cells)


def _sort_key(row: BenchmarkRow, model: str, paper: Sequence[str]) -> tuple[int, float, str]:
    """Sort the paper's encoders in its order, then the others by their first metric, the best first."""
    if model in paper:
        return paper.index(model), 0.0, row.name
    first = next((cell.ours for cell in row.cells.values() if cell.ours is not None), -1.0)
    return len(paper), -first, row.name


def _compare(name: str, runs: _RunsByRow, against: str | None) -> list[EncoderComparison]:
    """Compare the encoders of a retrieval set with its best one or with `against`, the smallest difference first."""
    from stylesim.evaluation.statistics import paired_difference

    values = {
        row: per_query[MAIN_METRIC]
        for row, evaluated in runs.finished
        if evaluated == name and (per_query := runs.per_query(row, name)) is not None
    }
    if len(values) < 2:
        return []
    baseline = against if against in values else max(values, key=lambda row: values[row].mean())
    comparisons = []
    for row in values:
        common = values[row].index.intersection(values[baseline].index)
        if row != baseline and len(common):
            difference = paired_difference(
                values[baseline].loc[common].to_numpy(float), values[row].loc[common].to_numpy(float)
            )
            comparisons.append(EncoderComparison(name, row, baseline, len(common), difference))
    return sorted(comparisons, key=lambda comparison: comparison.difference.mean)
