"""Figures of several encoders side by side: one list of rows as HTML, Markdown or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from html import escape

from stylesim.core.errors import StylesimError

Value = str | int | float | None


@dataclass(frozen=True)
class MetricsTable:
    """Rows are encoders, columns are metrics; floats are fractions in [0, 1] and shown with three decimals.

    The first column names the row. The best of each float column is set in bold (every row that shows the
    same digits), except in `unranked` columns (globs), where more is not better. With `baseline`, the name of
    a row, the others show their distance from it. Rows may lack columns; `columns` chooses and orders them.
    Raises StylesimError for no rows, an unknown column and an unknown baseline.
    """

    rows: Sequence[Mapping[str, Value]]
    columns: Sequence[str] | None = None
    baseline: str | None = None
    unranked: Sequence[str] = ("*/content", "*content_*", "*chance*")

    def __post_init__(self) -> None:
        known = list(dict.fromkeys(name for row in self.rows for name in row))
        if not known:
            raise StylesimError("A table of metrics needs at least one row.")
        if unknown := [name for name in self.columns or () if name not in known]:
            raise StylesimError(f"No row has the column {unknown[0]!r}; there are {', '.join(known)}.")
        object.__setattr__(self, "columns", list(self.columns or known))
        if self.baseline is not None and self._base() is None:
            names = ", ".join(str(row.get(self._names[0])) for row in self.rows)
            raise StylesimError(f"No row is called {self.baseline!r}, the baseline; there are {names}.")

    @property
    def _names(self) -> list[str]:
        return list(self.columns or ())

    def html(self) -> str:
        """A table that scrolls sideways on a narrow page, each metric on a bar as long as its fraction."""
        head = "".join(f"<th>{_breakable(name)}</th>" for name in self._names)
        lines = ("".join(self._cell(row, name) for name in self._names) for row in self.rows)
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        table = f'<table class="metrics"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        return f'<div class="wide">{table}</div>'

    def markdown(self) -> str:
        """A Markdown table; the best metrics are bold."""

        def cell(row: Mapping[str, Value], name: str) -> str:
            text = (_text(row.get(name)) + _signed(self._delta(row, name), " ({})")).replace("|", "\\|")
            return f"**{text}**" if self._is_best(row, name) else text

        lines = [
            [name.replace("|", "\\|") for name in self._names],
            ["---", *["---:"] * (len(self._names) - 1)],
        ]
        lines += [[cell(row, name) for name in self._names] for row in self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def csv(self) -> str:
        """The values unrounded, for a spreadsheet or another program."""
        file = io.StringIO()
        writer = csv.DictWriter(file, self._names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return file.getvalue()

    def _cell(self, row: Mapping[str, Value], name: str) -> str:
        value, text = row.get(name), escape(_text(row.get(name)))
        if name == self._names[0]:
            return f"<th>{text}</th>"
        if not isinstance(value, float):
            return f'<td class="text">{text}</td>' if isinstance(value, str) else f"<td>{text}</td>"
        delta = self._delta(row, name)
        direction = "" if delta is None or self._unranked(name) else "up" if delta > 0 else "down" if delta < 0 else ""
        small = "" if delta is None else f'<small class="{direction}">{_signed(delta, "{}")}</small>'
        share = min(max(value, 0.0), 1.0) * 100
        best = " best" if self._is_best(row, name) else ""
        return f'<td class="metric{best}" style="--share:{share:.1f}">{text}{small}</td>'

    def _is_best(self, row: Mapping[str, Value], name: str) -> bool:
        values = [_text(v) for other in self.rows if isinstance(v := other.get(name), float)]
        mine = row.get(name)
        return (
            isinstance(mine, float)
            and len(values) > 1
            and not self._unranked(name)
            and float(_text(mine)) == max(map(float, values))
        )

    def _unranked(self, name: str) -> bool:
        return any(fnmatchcase(name, glob) for glob in self.unranked)

    def _base(self) -> Mapping[str, Value] | None:
        return next((row for row in self.rows if row.get(self._names[0]) == self.baseline), None)

    def _delta(self, row: Mapping[str, Value], name: str) -> float | None:
        base = self._base() if self.baseline is not None else None
        if base is None or base is row:
            return None
        mine, theirs = row.get(name), base.get(name)
        return mine - theirs if isinstance(mine, float) and isinstance(theirs, float) else None


def _text(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else value


def _signed(delta: float | None, shape: str) -> str:
    return "" if delta is None else shape.format(f"{delta:+.3f}".replace("-", "−"))


def _breakable(name: str) -> str:
    """A heading that may break after a slash: `validation/recall@1` need not set a column's width."""
    return escape(name).replace("/", "/<wbr>")
