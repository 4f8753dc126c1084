"""WikiArt as the paper evaluates it: a folder of genres, and the published `wikiart.csv` with its split."""

from __future__ import annotations

import logging
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from stylesim.core.errors import ConfigError, DataError
from stylesim.core.file_names import path_parts, printable
from stylesim.core.image_folders import image_files
from stylesim.data.datasets.evaluation_sets import Census, summary
from stylesim.data.image_tables import read_image_table, write_image_table
from stylesim.data.labels import cell_text, clean_label, without_decimals
from stylesim.data.sample import Sample

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = 20
"""Number of rows without a file that are listed; the others are only counted."""

logger = logging.getLogger(__name__)


class WikiArt:
    """Database and queries of WikiArt (CSD, section 5.1): 64,090 and 16,006 images of 1,119 artists.

    Images are tagged `artist:x` and `genre:y`, the genre being their folder. Some names of the table differ from those
    of the public archive in "-" and "_": such a row is matched to the only remaining candidate, or to none if there are
    several. Queries of artists that the database lacks are left out, as in the published code.

    Args:
        root: The folder with `<genre>/<artist>_<title>.jpg`.
        spec: Function that makes a `RetrievalSpec` from `query`, `gallery` and `relevant`.
        table: The table with the columns `split` ("database" or "query"), `artist`, and `path` or `name`; by default
            `wikiart.csv` in `root`. Of a path, only the genre and the file name are used.
        relevant: The retrieval sets by name, each a glob over tags.
        tables: The folder that gets `wikiart-query.parquet` and `wikiart-database.parquet`, which list what was
            evaluated; None means a temporary folder.
    """

    def __init__(
        self,
        root: str,
        *,
        spec: Callable[..., Any],
        table: str | None = None,
        relevant: Mapping[str, str] | None = None,
        tables: str | None = None,
    ) -> None:
        self.root = Path(root).expanduser()
        self.table = Path(table).expanduser() if table else self.root / "wikiart.csv"
        self.spec, self.relevant = spec, dict(relevant or {"wikiart": "artist:*"})
        self.tables = tables

    def retrieval_sets(self) -> dict[str, Any]:
        """Return a `RetrievalSpec` for each of `relevant`, and log what was found and what was left out.

        Raises:
            ConfigError: If the folder or the table does not exist.
            DataError: If the table lacks a column or a split, or leaves no query.
        """
        frame = self._frame()
        names = {file: file.relative_to(self.root).as_posix() for file in image_files(self.root)}
        files = {clean_label("/".join(path_parts(name))): file for file, name in names.items()}
        found = match(frame["file"].tolist(), list(files))
        sides: dict[str, list[Sample]] = {"query": [], "database": []}
        for row, (artist, split) in enumerate(zip(frame["artist"], frame["split"], strict=True)):
            if row in found:
                genre = PurePosixPath(found[row]).parent.name
                tags = [f"artist:{artist}", *([f"genre:{genre}"] if genre else [])]
                sides[split].append(Sample(found[row], files[found[row]], tags, None, printable(self.table)))
        artists = {sample.tags[0] for sample in sides["database"]}
        queries = [sample for sample in sides["query"] if sample.tags[0] in artists]
        without_artist = [sample for sample in sides["query"] if sample.tags[0] not in artists]
        if not queries:
            raise DataError(
                f"{self.table} and {self.root} have no query in common: {len(found):,} of {len(frame):,} rows have a"
                " file. data.root must be the folder that holds the genres; data.table can name another table."
            )
        title = f"WikiArt {self.root}"
        lines = [summary(title, Census.of(queries), Census.of(sides["database"]), self.relevant)]
        lines += _describe_omissions(frame["file"].tolist(), found, without_artist)
        logger.info("\n".join(lines))
        folder = Path(self.tables or tempfile.mkdtemp(prefix="stylesim-"))
        query = write_image_table(queries, folder / "wikiart-query.parquet")
        database = write_image_table(sides["database"], folder / "wikiart-database.parquet")
        return {
            name: self.spec(query=[query], gallery=[database], relevant=glob) for name, glob in self.relevant.items()
        }

    def _frame(self) -> pd.DataFrame:
        """Return the rows of both splits; `file` is `<genre>/<name>` of the image, or its name alone."""
        if not self.root.is_dir():
            raise ConfigError(f"data.root must be the folder of WikiArt's genres, but there is no folder {self.root}.")
        if not self.table.is_file():
            raise ConfigError(
                f"There is no table {self.table}: put the table there that the CSD repository publishes for WikiArt,"
                " or name another one with data.table=PATH."
            )
        frame = read_image_table(self.table)
        if missing := [column for column in ("artist", "split") if column not in frame]:
            raise DataError(f"{self.table} has no column {missing[0]!r}; its columns are {', '.join(frame)}.")
        frame = frame.assign(split=frame["split"].map(cell_text).str.strip().str.casefold())
        splits, wanted = frame["split"], frame["split"].isin(["query", "database"])
        if len(set(splits[wanted])) < 2:
            found = ", ".join(f"{split or 'none'} ({count:,} rows)" for split, count in splits.value_counts().items())
            raise DataError(
                f"{self.table} must have rows whose split is database, and rows whose split is query; found:"
                f" {found or 'no row'}."
            )
        frame = frame[wanted]
        names = ["/".join(path.replace("\\", "/").strip("/").split("/")[-2:]) for path in frame["path"]]
        artists = [clean_label(cell_text(artist)) for artist in without_decimals(frame["artist"].tolist())]
        frame = frame.assign(file=[clean_label(name) for name in names], artist=artists)
        return frame.drop_duplicates(["file", "artist", "split"]).reset_index(drop=True)


def match(wanted: Sequence[str], files: Sequence[str]) -> dict[int, str]:
    """Find the file that each wanted name means.

    Names are compared by folder and name, then by name alone, then in both ways with "-" for every "_". If several
    names or several files are candidates, none is taken; each file is given to one name only.

    Args:
        wanted: `<folder>/<name>`, or a name alone.
        files: `<folder>/<name>` of the files that exist.

    Returns:
        The file for each position in `wanted` that has one.
    """

    def with_hyphens(file: str) -> str:
        return file.replace("_", "-")

    found: dict[int, str] = {}
    for key in (str, _name, with_hyphens, lambda file: with_hyphens(_name(file))):
        taken = set(found.values())
        positions, candidates = defaultdict(list), defaultdict(list)
        for position, name in enumerate(wanted):
            if position not in found:
                positions[key(name)].append(position)
        for file in files:
            if file not in taken:
                candidates[key(file)].append(file)
        for k, unmatched in positions.items():
            if len(unmatched) == 1 and len(candidates.get(k, ())) == 1:
                found[unmatched[0]] = candidates[k][0]
    return found


def _name(file: str) -> str:
    return file.rpartition("/")[2]


def _describe_omissions(wanted: Sequence[str], found: Mapping[int, str], without_artist: Sequence[Sample]) -> list[str]:
    """Return lines on the rows whose name was corrected, that have no file, and whose artist is not in the database."""
    corrected = sum(_name(wanted[row]) != _name(file) for row, file in found.items())
    lines = [f"  {corrected:,} names differ from the table's in '-' and '_'"] if corrected else []
    if lost := [name for row, name in enumerate(wanted) if row not in found]:
        more = f" and {len(lost) - EXAMPLES:,} more" if len(lost) > EXAMPLES else ""
        lines.append(f"  {len(lost):,} rows have no file, or several candidates: {', '.join(lost[:EXAMPLES])}{more}")
    if without_artist:
        artists = len({sample.tags[0] for sample in without_artist})
        lines.append(
            f"  {len(without_artist):,} queries are left out, because the database has nothing by their {artists:,}"
            " artists"
        )
    return lines
