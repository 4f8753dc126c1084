"""Write a table of formatted cells as Markdown or LaTeX."""

from __future__ import annotations

import pandas as pd

_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "_%&#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def markdown_table(table: pd.DataFrame) -> str:
    """Return a Markdown table, ending in a newline, with the first column left-aligned and the others right-aligned.

    Args:
        table: Cells and column names as text, which may contain Markdown; `|` is escaped and line breaks become spaces.
    """

    def escape(text: str) -> str:
        return " ".join(text.replace("|", "\\|").splitlines())

    alignment = ["left", *["right"] * (table.shape[1] - 1)]
    escaped = table.map(escape).rename(columns=escape)
    return escaped.to_markdown(index=False, disable_numparse=True, colalign=alignment if len(table) else None) + "\n"


def latex_table(table: pd.DataFrame) -> str:
    """Return a `tabular` with the rules of booktabs; column names of two levels are grouped.

    Args:
        table: Cells and column names as LaTeX: use `escape_latex` for text.
    """
    columns = "l" + "r" * (table.shape[1] - 1)
    return table.to_latex(index=False, escape=False, column_format=columns, multicolumn_format="c")


def escape_latex(text: str) -> str:
    """Escape the characters that LaTeX treats as commands."""
    return text.translate(_LATEX)
