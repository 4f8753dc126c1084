"""Write tables as CSV, and make results fit for JSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from stylesim.core.files import atomic_path


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, atomically; bytes of names that are not UTF-8 are escaped."""
    with atomic_path(path) as partial:
        table.to_csv(partial, index=False, errors="backslashreplace")


def without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by null."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
