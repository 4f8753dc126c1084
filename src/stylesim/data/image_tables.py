"""Read and write tables of images: CSV, TSV or Parquet files with a path in each row."""

from __future__ import annotations

import csv
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylesim.core.errors import DataError
from stylesim.core.file_names import printable
from stylesim.core.files import atomic_path
from stylesim.core.text_files import read_text
from stylesim.data.labels import cell_text, is_no_label, without_decimals
from stylesim.data.sample import Sample

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".csv", ".tsv", ".parquet")
"""Suffixes of tables, in lower case."""
PATH_COLUMNS = (
    *("path", "file_path", "filepath", "image_path", "img_path", "image", "img", "image_file"),
    *("file_name", "filename", "image_name", "file", "name"),
)
"""Columns that name the images; the first one that a table has is used."""
LABEL_COLUMNS = (
    *("tags", "tag", "labels", "label", "artist", "artists", "style", "styles", "class", "classes", "class_name"),
    *("category", "categories", "author", "painter", "movement", "genre"),
)
"""Columns that hold labels; the first one that a table has is used."""

logger = logging.getLogger(__name__)


def is_table(file: Path) -> bool:
    """Return whether a file has the suffix of a table, in upper or lower case."""
    return file.suffix.lower() in TABLES


def read_table(table: Path) -> pd.DataFrame:
    """Read a table, its column names stripped of blanks and in lower case.

    Every cell of a CSV or TSV file is text, "" where it is empty. The file may be in UTF-8, UTF-16 or Windows-1252, and
    the cells of a CSV file separated by semicolons or tabs. Of two columns with the same name, the first is kept.

    Args:
        table: A file whose suffix is one of `TABLES`.

    Raises:
        DataError: If the file cannot be read as a table.
    """
    import pandas as pd

    try:
        if table.suffix.lower() == ".parquet":
            with table.open("rb") as file:  # pyarrow itself opens no path that is not UTF-8
                frame = pd.read_parquet(file)
        else:
            text = read_text(table)
            with warnings.catch_warnings():  # a row with more cells than there are columns would lose some
                warnings.simplefilter("error", pd.errors.ParserWarning)
                separator = _separator(text, table.suffix.lower())
                frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, index_col=False)
    except DataError:
        raise
    except Exception as error:  # pandas and pyarrow raise errors of many kinds for a damaged file
        raise DataError(f"{table} cannot be read as a table ({error}).") from error
    frame.columns = [_heading(name) for name in frame.columns]
    return pd.DataFrame(frame.loc[:, ~frame.columns.duplicated()])


def read_image_table(table: Path) -> pd.DataFrame:
    """Read a table as `read_table` does, with the column that names the images called `path`, as text.

    Rows without a path are left out, and their number is logged.

    Raises:
        DataError: If the file cannot be read, or has none of `PATH_COLUMNS`.
    """
    frame = read_table(table)
    column = next((name for name in PATH_COLUMNS if name in frame), None)
    if column is None:
        raise DataError(
            f"{table} has no column that names the images: expected one of {', '.join(PATH_COLUMNS)}, got "
            f"{', '.join(frame)}."
        )
    paths = [None if is_no_label(cell) else cell_text(cell) for cell in frame[column]]
    frame = frame.rename(columns={column: "path"}).assign(path=paths)
    if missing := paths.count(None):
        logger.warning("%s: %s rows have no %s, and are left out.", table, f"{missing:,}", column)
        frame = frame.dropna(subset="path").reset_index(drop=True)
    return frame


def label_cells(frame: pd.DataFrame, table: Path) -> Sequence[Any]:
    """Return the column that holds the labels of a table; if there is none, a warning names its columns."""
    columns = [name for name in LABEL_COLUMNS if name in frame]
    if not columns:
        logger.warning(
            "%s has no column of labels, so its images have none: expected one of %s, got %s.",
            table,
            ", ".join(LABEL_COLUMNS),
            ", ".join(frame),
        )
        return [None] * len(frame)
    if len(columns) > 1:
        logger.info("%s: the labels are those of %s; not used: %s.", table, columns[0], ", ".join(columns[1:]))
    return without_decimals(frame[columns[0]].tolist())


def image_keys(frame: pd.DataFrame) -> list[str]:
    """Return the last part of the ids of the images of `read_image_table`: the column `key`, or else the path."""
    keys = without_decimals(frame["key"].tolist()) if "key" in frame else [None] * len(frame)
    cells = zip(frame["path"], keys, strict=True)
    return [printable(path if is_no_label(key) else cell_text(key)) for path, key in cells]


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
        "path": [printable(Path(str(sample.image)).absolute()) for sample in samples],
        "tags": [list(sample.tags) for sample in samples],
        "content": [sample.content for sample in samples],
    }
    with atomic_path(table) as partial:
        pd.DataFrame(columns).to_parquet(partial)
    return str(table)


def _heading(name: Any) -> str:
    return str(name).strip().casefold().replace(" ", "_").replace("-", "_")


def _separator(text: str, suffix: str) -> str:
    """Return the separator of a text table; in many countries, spreadsheets write CSV with semicolons."""
    first = next(iter(csv.reader(io.StringIO(text), delimiter="\t" if suffix == ".tsv" else ",")), [])
    if suffix == ".tsv" or len(first) > 1:
        return "\t" if suffix == ".tsv" else ","
    return next((sign for sign in (";", "\t") if sign in "".join(first)), ",")
