"""Normalise labels as people write them: one spelling per label, and no label for a missing value."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

from stylesim.core.file_names import printable

MISSING = frozenset(
    ("", "nan", "NaN", "NAN", "<NA>", "NA", "N/A", "n/a", "#N/A", "None", "none", "NULL", "null", "NaT")
)
"""What pandas, R, databases and spreadsheets write into text where there is no value."""


def clean_label(text: str) -> str:
    """Return a label in Unicode's normal form NFC, without blanks around it, so that all its spellings are equal."""
    if text.isascii():  # nearly all are, and training reads millions of labels
        return text.strip()
    return unicodedata.normalize("NFC", printable(text)).strip()


def clean_labels(labels: Iterable[str]) -> list[str]:
    """Return the distinct labels after `clean_label`, in their order; empty ones are left out."""
    return list(dict.fromkeys(label for text in labels if (label := clean_label(text))))


def split_tags(cell: Any) -> list[str]:
    """Return the tags of one cell: a list, text separated by `|` or `;`, or the number of a class."""
    if isinstance(cell, str):
        parts = [tag for part in cell.split("|") for tag in part.split(";") if not is_no_label(tag)]
    elif isinstance(cell, Iterable) and not isinstance(cell, bytes):  # a list marks missing values by None, not by text
        parts = [tag if isinstance(tag, str) else cell_text(tag) for tag in cell]
    else:
        parts = [cell_text(cell)]
    return clean_labels(parts)


def cell_text(cell: Any) -> str:
    """Return one value of a table as text: "" for a missing one, and a whole number without a decimal point."""
    if is_missing(cell):
        return ""
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "backslashreplace")
    if isinstance(cell, Real) and not isinstance(cell, Integral) and float(cell).is_integer():
        return str(int(float(cell)))  # pandas turns integers with a missing value into floats
    return str(cell)


def is_missing(cell: Any) -> bool:
    """Return whether a cell holds nothing: None, "", NaN, or NA and NaT of pandas."""
    if cell is None or isinstance(cell, str | Iterable):
        return cell is None or (isinstance(cell, str) and not cell.strip())
    return type(cell).__name__ in ("NAType", "NaTType") or bool(cell != cell)


def is_no_label(cell: Any) -> bool:
    """Return whether a cell is missing, or is text that says so (see `MISSING`)."""
    return is_missing(cell) or (isinstance(cell, str) and cell.strip() in MISSING)


def without_decimals(cells: Sequence[Any]) -> Sequence[Any]:
    """Return a column of text; if all its values are whole numbers like "1.0", these become "1".

    That is how pandas writes a column of integers with a missing value into a CSV file.
    """
    values = [cell for cell in cells if not is_no_label(cell)]
    if not all(isinstance(v, str) and v.endswith(".0") and v[:-2].removeprefix("-").isdecimal() for v in values):
        return cells
    return [cell if is_no_label(cell) else cell[:-2] for cell in cells]
