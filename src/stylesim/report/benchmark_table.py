"""One table of all runs below a folder, beside the paper's metrics.

It reads run folders and needs no model, so a table can be made anew at any time: of a sweep that is finished, that is
half done, or in which jobs have failed.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from stylesim.core.errors import StylesimError
from stylesim.report.run_folders import RunFolder, find_run_folders, row_names

if TYPE_CHECKING:
    import pandas as pd

    from stylesim.evaluation.statistics import PairedDifference

MAIN = "recall@1"
"""What encoders are compared by; the paper's mAP@1 is the same number."""

Column = tuple[str, str]
"""A retrieval set and a metric."""


@dataclass(frozen=True)
class BenchmarkCell:
    """One metric of one encoder, as a fraction: ours, the bounds of its 95 % bootstrap interval, and the paper's."""

    ours: float | None = None
    interval: tuple[float, float] | None = None
    paper: float | None = None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.ours is None or self.paper is None else self.ours - self.paper


@dataclass(frozen=True)
class BenchmarkRow:
    """An encoder: its name here, what the paper calls it, and its metrics."""

    name: str
    title: str
    cells: Mapping[Column, BenchmarkCell]


@dataclass(frozen=True)
class EncoderComparison:
    """An encoder against the one it is measured by (`against`), over the queries of a set that both have."""

    set: str
    name: str
    against: str
    queries: int
    difference: PairedDifference


@dataclass(frozen=True)
class BenchmarkTable:
    """The table. `missing`: sentences on metrics that should be there and are not. `common`: overrides of all runs."""

    columns: Sequence[Column]
    rows: Sequence[BenchmarkRow]
    comparisons: Sequence[EncoderComparison]
    missing: Sequence[str]
    common: Sequence[str]

    def best(self, column: Column) -> float | None:
        """The highest of our metrics in a column, None where only one encoder has it."""
        ours = [cell.ours for row in self.rows if (cell := row.cells.get(column)) and cell.ours is not None]
        return max(ours) if len(ours) > 1 else None


def read_benchmark(folder: Path, metrics: Sequence[str] = (MAIN,), against: str | None = None) -> BenchmarkTable:
    """Put the runs below `folder` into one table.

    Retrieval sets that the paper has metrics of get the columns of its table 1, and its encoders are rows whether they
    have run or not; others get `metrics`. Of two runs of one encoder and set the later counts. `against`: the row that
    the others are compared with; else the best of each set.

    Raises `StylesimError` where there is no run, and for an unknown metric or row.
    """
    found, paper = _Found(find_run_folders(folder)), paper_metrics()
    of_paper = list(dict.fromkeys(column for _, cells in paper.values() for column in cells))
    sets = found.sets(list(dict.fromkeys(name for name, _ in of_paper)))
    columns = [
        (name, metric)
        for name in sets
        for metric in [f for s, f in of_paper if s == name] or [f for f in metrics if found.has(name, f)]
    ]
    if not columns and found.finished:
        known = sorted({metric for run in found.runs for values in run.metrics.values() for metric in values})
        raise StylesimError(f"No run has {' or '.join(metrics)}. Figures: {', '.join(known)}.")
    if against is not None and against not in found.rows:
        raise StylesimError(f"There is no row {against!r} to compare with; there are {', '.join(found.rows)}.")
    beside = [name for name in sets if name in {s for s, _ in of_paper}]
    never = [model for model in paper if beside and model not in map(_model, found.rows)]
    rows = [_row(name, paper.get(_model(name)), columns, found) for name in (*never, *found.rows)]
    rows.sort(key=lambda row: _place(row, list(paper) if beside else []))
    comparisons = [line for name in sets for line in _comparisons(name, found, against)]
    missing = found.missing(beside) + ([f"no run at all: {', '.join(never)}"] if never else [])
    return BenchmarkTable(columns, rows, comparisons, missing, row_names(found.runs)[1])


def paper_metrics() -> dict[str, tuple[str, dict[Column, float]]]:
    """Table 1 of the paper (arXiv 2404.01292): our name of an encoder -> its name there and its metrics (fractions)."""
    table = {}
    with files("stylesim.report").joinpath("paper_table1.csv").open() as file:
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
class _Found:
    """The runs, by row and retrieval set."""

    runs: list[RunFolder]
    _values: dict[Column, pd.DataFrame | None] = field(default_factory=dict)

    @cached_property
    def named(self) -> list[tuple[str, RunFolder]]:
        """Each run, with the name of its row."""
        return list(zip(row_names(self.runs)[0], self.runs, strict=True))

    @cached_property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self.named))

    @cached_property
    def finished(self) -> dict[tuple[str, str], RunFolder]:
        """(row, set) -> the run that has its metrics; the later of two."""
        return {(name, s): run for name, run in self.named for s in run.metrics}

    def sets(self, known: Sequence[str]) -> list[str]:
        """Retrieval sets of which there are metrics, or should be: those of the paper first."""
        asked = {run.data for run in self.runs}
        measured = dict.fromkeys(s for run in self.runs for s in run.metrics)
        return [s for s in known if s in asked or s in measured] + [s for s in measured if s not in known]

    def has(self, name: str, metric: str) -> bool:
        return any(metric in run.metrics.get(name, {}) for run in self.runs)

    def values(self, row: str, name: str) -> pd.DataFrame | None:
        """Per-query values of a row on a set."""
        if (row, name) not in self._values:
            run = self.finished.get((row, name))
            self._values[row, name] = run.per_query(name) if run else None
        return self._values[row, name]

    def missing(self, beside: Sequence[str]) -> list[str]:
        """A sentence for each run without metrics that no other has made good; for rows that no run asked for a set."""
        done = {(name, run.data) for name, run in self.named if run.metrics}
        tried = {(name, run.data) for name, run in self.named} | self.finished.keys()
        lines = [
            f"{name}, {run.data}: {run.reason} ({run.path})"
            for name, run in self.named
            if not run.metrics and (name, run.data) not in done
        ]
        lines += [f"{name}, {s}: no run of it" for name in self.rows for s in beside if (name, s) not in tried]
        return sorted(lines)


def _row(
    name: str, paper: tuple[str, dict[Column, float]] | None, columns: Sequence[Column], found: _Found
) -> BenchmarkRow:
    from stylesim.evaluation.statistics import bootstrap_interval

    cells = {}
    for column in columns:
        s, metric = column
        run, values = found.finished.get((name, s)), found.values(name, s)
        ours = run.metrics[s].get(metric) if run else None
        counted = ours is not None and values is not None and metric in values
        interval = bootstrap_interval(values[metric].to_numpy()) if counted and values is not None else None
        cells[column] = BenchmarkCell(ours, interval, paper[1].get(column) if paper else None)
    return BenchmarkRow(name, paper[0] + name.removeprefix(_model(name)) if paper else name, cells)


def _model(row: str) -> str:
    """The model of a row's name, which may go on with overrides."""
    return row.partition(" ")[0]


def _place(row: BenchmarkRow, paper: Sequence[str]) -> tuple[int, float, str]:
    """The paper's encoders in its order, then the others, the best first."""
    model = _model(row.name)
    first = next((cell.ours for cell in row.cells.values() if cell.ours is not None), -1.0)
    return (paper.index(model), 0.0, row.name) if model in paper else (len(paper), -first, row.name)


def _comparisons(name: str, found: _Found, against: str | None) -> list[EncoderComparison]:
    import numpy as np

    from stylesim.evaluation.statistics import paired_difference

    rows = {
        row: values[MAIN] for row, s in found.finished if s == name and (values := found.values(row, s)) is not None
    }
    if len(rows) < 2:
        return []
    best = against if against in rows else max(rows, key=lambda row: rows[row].mean())
    lines = []
    for row, mine in rows.items():
        if row != best and len(both := mine.index.intersection(rows[best].index)):
            difference = paired_difference(np.asarray(rows[best].loc[both]), np.asarray(mine.loc[both]))
            lines.append(EncoderComparison(name, row, best, len(both), difference))
    return sorted(lines, key=lambda line: line.difference.mean)
