"""Compare the metrics of several encoders in one table, for HTML pages, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from typing import NamedTuple

import pandas as pd

from stylesim.core.errors import DataError
from stylesim.report.html_page import format_number
from stylesim.report.tables.text_tables import markdown_table

Value = str | int | float | None


class MetricCell(NamedTuple):
    """One formatted cell of a `MetricsTable`."""

    text: str
    is_text: bool = False
    """Whether the value is text, not a number."""
    share: float | None = None
    """The length of the bar, in [0, 1]; None if the column does not hold fractions."""
    best: bool = False
    """Whether no other row has a higher value in this column."""
    difference: str = ""
    """The signed difference from the baseline, empty if there is none."""
    direction: str = ""
    """`up` or `down` for a difference in a ranked column."""


class ColumnGroup(NamedTuple):
    """Columns of a `MetricsTable` under one heading: (name, whether the column holds text)."""

    title: str
    columns: list[tuple[str, bool]]


@dataclass(frozen=True)
class MetricsTable:
    """Metrics by encoder; floats are shown with three decimals, and with a bar if they are fractions in [0, 1].

    The highest value of each ranked float column is marked, in all rows that show the same digits. Columns without any
    value are not shown.

    Attributes:
        rows: One mapping of column names to values for each encoder. Rows may lack columns.
        columns: Which columns to show, in order; all by default. The first one names the row.
        baseline: Name of the row that the others are compared with.
        unranked: Globs over column names in which higher is not better.

    Raises:
        DataError: If there is no row, or `columns` or `baseline` names one that does not exist.
    """

    rows: Sequence[Mapping[str, Value]]
    columns: Sequence[str] | None = None
    baseline: str | None = None
    unranked: Sequence[str] = ("*/content", "*content_*", "*chance*")

    def __post_init__(self) -> None:
        known = self._known_columns
        if not known:
            raise DataError("A table of metrics needs at least one row.")
        if unknown := [name for name in self.columns or () if name not in known]:
            raise DataError(f"No row has the column {unknown[0]!r}; the columns are {', '.join(known)}.")
        if self.baseline is not None and self._baseline_row is None:
            names = ", ".join(str(row.get(self.shown_columns[0])) for row in self.rows)
            raise DataError(f"The baseline {self.baseline!r} is not a row; the rows are {names}.")

    @property
    def shown_columns(self) -> list[str]:
        """The columns in which at least one row has a value."""
        columns = self.columns or self._known_columns
        return [name for name in columns if any(row.get(name) not in (None, "") for row in self.rows)]

    def column_groups(self) -> list[ColumnGroup]:
        """Group neighbouring columns called `set/metric` by their set; other columns are in a group without a title."""
        groups = groupby(self.shown_columns, key=lambda name: name.rpartition("/")[0])
        return [
            ColumnGroup(title, [(name.rpartition("/")[2], self._is_text(name)) for name in names])
            for title, names in groups
        ]

    def cells(self) -> list[list[MetricCell]]:
        """Return the rows with the values of `shown_columns` formatted."""
        return [[self._cell(row, name) for name in self.shown_columns] for row in self.rows]

    def markdown(self) -> str:
        """Return a Markdown table in which the best values are bold."""

        def text(cell: MetricCell) -> str:
            shown = f"{cell.text} ({cell.difference})" if cell.difference else cell.text
            return f"**{shown}**" if cell.best else shown

        cells = [[text(cell) for cell in row] for row in self.cells()]
        return markdown_table(pd.DataFrame(cells, columns=self.shown_columns))

    def csv(self) -> str:
        """Return the values of all rows and columns as CSV, with all their digits."""
        columns = list(self.columns or self._known_columns)
        table = pd.DataFrame([dict(row) for row in self.rows], columns=columns, dtype=object)
        return table.to_csv(index=False, lineterminator="\n")

    @property
    def _known_columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def _baseline_row(self) -> Mapping[str, Value] | None:
        return next((row for row in self.rows if row.get(self.shown_columns[0]) == self.baseline), None)

    def _cell(self, row: Mapping[str, Value], name: str) -> MetricCell:
        value = row.get(name)
        if not isinstance(value, float):
            return MetricCell(_format(value), is_text=isinstance(value, str))
        ranked = not any(fnmatchcase(name, glob) for glob in self.unranked)
        difference = self._difference(row, name)
        return MetricCell(
            _format(value),
            share=min(max(value, 0.0), 1.0) if self._is_fraction(name) else None,
            best=ranked and self._is_best(value, name),
            difference="" if difference is None else format_number(difference, "+.3f"),
            direction="" if not ranked or not difference else "up" if difference > 0 else "down",
        )

    def _is_text(self, name: str) -> bool:
        return any(isinstance(row.get(name), str) for row in self.rows)

    def _is_fraction(self, name: str) -> bool:
        """Return whether all values of a column are in [0, 1], up to rounding errors."""
        values = [value for row in self.rows if isinstance(value := row.get(name), float)]
        return all(-1e-6 <= value <= 1 + 1e-6 for value in values)

    def _is_best(self, value: float, name: str) -> bool:
        values = [round(other, 3) for row in self.rows if isinstance(other := row.get(name), float)]
        return len(values) > 1 and round(value, 3) == max(values)

    def _difference(self, row: Mapping[str, Value], name: str) -> float | None:
        if self.baseline is None or (baseline := self._baseline_row) is None or baseline is row:
            return None
        value, other = row.get(name), baseline.get(name)
        return value - other if isinstance(value, float) and isinstance(other, float) else None


def _format(value: Value) -> str:
    if isinstance(value, float):
        return format_number(value)
    if isinstance(value, int):
        return f"{value:,}"
    return value or ""
