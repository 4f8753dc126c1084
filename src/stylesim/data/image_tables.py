"""Read and write tables of images: CSV, TSV or Parquet files with a path in each row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylesim.core.errors import DataError
from stylesim.core.files import atomic_path
from stylesim.data.sample import Sample

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".csv", ".tsv", ".parquet")
PATH_COLUMNS = ("path", "image", "name", "file")
LABEL_COLUMNS = ("tags", "label", "artist")


def read_table(table: Path) -> pd.DataFrame:
    """Read a table, its column names stripped of blanks and in lower case.

    Every cell of a CSV or TSV file is text, "" where it is empty. Of two columns with one name the first is kept.

    Args:
        table: A file whose suffix is one of `TABLES`.

    Raises:
        DataError: If the file cannot be read as a table.
    """
    import pandas as pd

    try:
        if table.suffix == ".parquet":
            frame = pd.read_parquet(table)
        else:
            frame = pd.read_csv(table, sep="\t" if table.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    except Exception as error:  # pandas and pyarrow raise errors of many kinds for a damaged file
        raise DataError(f"{table} cannot be read as a table ({error}).") from error
    frame.columns = [str(name).strip().casefold() for name in frame.columns]
    return frame.loc[:, ~frame.columns.duplicated()]


def read_image_table(table: Path) -> pd.DataFrame:
    """Read a table as `read_table` does, with the column that names the images called `path`, as text.

    Raises:
        DataError: If the file cannot be read, or none of `PATH_COLUMNS` is there.
    """
    frame = read_table(table)
    column = next((name for name in PATH_COLUMNS if name in frame), None)
    if column is None:
        raise DataError(
            f"{table} has no column that names the images: expected one of {', '.join(PATH_COLUMNS)}, got "
            f"{', '.join(frame)}."
        )
    return frame.rename(columns={column: "path"}).astype({"path": str})


def split_tags(cell: Any) -> list[str]:
    """Return the tags of one cell: a list, text separated by `|` or `;`, or the number of a class."""
    if isinstance(cell, str):
        return [tag for part in cell.split("|") for text in part.split(";") if (tag := text.strip())]
    if is_missing(cell):
        return []
    return [str(tag) for tag in cell] if isinstance(cell, Iterable) else [str(cell)]


def is_missing(cell: Any) -> bool:
    """Return whether a cell holds nothing: None, "" or NaN."""
    return cell is None or (isinstance(cell, str) and not cell) or (isinstance(cell, float) and cell != cell)


def write_image_table(samples: Sequence[Sample], table: Path) -> str:
    """Write image files with their labels as a Parquet table that `find_samples` reads.

    The column `key` holds the ids, so that an image keeps its id wherever the files are.

    Args:
        samples: Samples whose `image` is a path.
        table: The file to write; several processes may write the same one at once.

    Returns:
        The path of the table.
    """
    import pandas as pd

    columns = {
        "key": [sample.id for sample in samples],
        "path": [str(Path(str(sample.image)).absolute()) for sample in samples],
        "tags": [list(sample.tags) for sample in samples],
        "content": [sample.content for sample in samples],
    }
    with atomic_path(table) as partial:
        pd.DataFrame(columns).to_parquet(partial)
    return str(table)
