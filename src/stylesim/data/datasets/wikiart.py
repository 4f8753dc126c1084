"""WikiArt as the paper scores it: a folder of genres, and the published `wikiart.csv` with its split."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from stylesim.core.errors import StylesimError
from stylesim.core.image_folders import image_files
from stylesim.data.datasets.evaluation_sets import Census, summary
from stylesim.data.image_tables import read_image_table, write_image_table
from stylesim.data.sample import Sample

if TYPE_CHECKING:
    import pandas as pd

NAMED = 20
"""Rows without a file that are named; beyond them only the count grows."""


class WikiArt:
    """Database and queries of WikiArt (CSD, section 5.1): 64,090 and 16,006 images of 1,119 artists.

    `root`: the folder with `<genre>/<artist>_<title>.jpg`. `table`: `wikiart.csv` in it, unless another is named; its
    columns are `split` ("database" or "query"), `artist`, and `path` or `name`. Paths from another machine are
    fine: the genre and the file name count. Images are tagged `artist:x` and `genre:y`, y being their folder.

    Names of the table differ from those of the public archive in "-" and "_": such a row gets the one file that is left
    for it, and none where there is a choice. Queries of artists that the database lacks are left out, as published.

    `relevant`: the retrieval sets by name, each a glob over tags. `spec` makes a `RetrievalSpec` of `query`, `gallery`
    and `relevant`. `tables`: the folder that gets `wikiart-query.parquet` and `wikiart-database.parquet`, which say
    what was evaluated; None takes a temporary one.
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
        """A `RetrievalSpec` for each of `relevant`; prints what was found and what was left out.

        Raises `StylesimError` where the folder or the table is missing, lacks a column, or leaves no query.
        """
        frame = self._frame()
        files = _files(self.root)
        found = match(frame["file"].tolist(), files)
        sides: dict[str, list[Sample]] = {"query": [], "database": []}
        for row, (artist, split) in enumerate(zip(frame["artist"], frame["split"], strict=True)):
            if row in found:
                genre = PurePosixPath(found[row]).parent.name
                tags = [f"artist:{artist}", *([f"genre:{genre}"] if genre else [])]
                sides[split].append(Sample(found[row], self.root / found[row], tags, None, str(self.table)))
        known = {item.tags[0] for item in sides["database"]}
        strangers = [item for item in sides["query"] if item.tags[0] not in known]
        queries = [item for item in sides["query"] if item.tags[0] in known]
        if not queries:
            raise StylesimError(
                f"{self.table} and {self.root} share no query: {len(found):,} of {len(frame):,} rows have a file."
                " data.root is the folder that holds the genres, or data.table names another table."
            )
        print(summary(f"WikiArt {self.root}", Census.of(queries), Census.of(sides["database"]), self.relevant))
        print(_left_out(frame["file"].tolist(), found, strangers), end="", flush=True)
        folder = Path(self.tables or tempfile.mkdtemp(prefix="stylesim-"))
        query = write_image_table(queries, folder / "wikiart-query.parquet")
        database = write_image_table(sides["database"], folder / "wikiart-database.parquet")
        return {
            name: self.spec(query=[query], gallery=[database], relevant=glob) for name, glob in self.relevant.items()
        }

    def _frame(self) -> pd.DataFrame:
        """The rows of both splits, with `file`: what the table calls the image, `<genre>/<name>` where it says so."""
        if not self.root.is_dir():
            raise StylesimError(
                f"data.root={self.root}: there is no such folder. It is the folder of WikiArt's genres."
            )
        if not self.table.is_file():
            raise StylesimError(
                f"there is no {self.table}: the table that the CSD repository publishes for WikiArt belongs there, or"
                " name it with data.table=PATH"
            )
        frame = read_image_table(self.table)
        if missing := [column for column in ("artist", "split") if column not in frame]:
            raise StylesimError(f"{self.table} has no column {missing[0]!r}; it has {', '.join(map(str, frame))}.")
        frame = frame[frame["split"].isin(["query", "database"])]
        frame = frame.assign(file=["/".join(PurePosixPath(str(path)).parts[-2:]) for path in frame["path"]])
        return frame.drop_duplicates(["file", "artist", "split"]).reset_index(drop=True)


def match(wanted: Sequence[str], files: Sequence[str]) -> dict[int, str]:
    """Which file each wanted name means: position in `wanted` -> file. Both are `<folder>/<name>`, or a name alone.

    First by folder and name, then by name alone, then both again with "-" for every "_". Where several names or several
    files come into question for one another, none is taken; a file that one name has is out for the others.
    """

    def loose(key: str) -> str:
        return key.replace("_", "-")

    found: dict[int, str] = {}
    for key in (str, _name, loose, lambda file: loose(_name(file))):
        taken = set(found.values())
        ours, theirs = defaultdict(list), defaultdict(list)
        for position, name in enumerate(wanted):
            if position not in found:
                ours[key(name)].append(position)
        for file in files:
            if file not in taken:
                theirs[key(file)].append(file)
        found |= {ours[k][0]: theirs[k][0] for k in ours if len(ours[k]) == 1 and len(theirs.get(k, ())) == 1}
    return found


def _name(file: str) -> str:
    return file.rpartition("/")[2]


def _files(root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in image_files(root)]


def _left_out(wanted: Sequence[str], found: Mapping[int, str], strangers: Sequence[Sample]) -> str:
    """Lines on the rows that were mended, that have no file, and that have no artist to find."""
    mended = sum(_name(wanted[row]) != _name(file) for row, file in found.items())
    lines = [f"  {mended:,} names differ from the table's in '-' and '_'"] if mended else []
    if lost := [name for row, name in enumerate(wanted) if row not in found]:
        more = f" and {len(lost) - NAMED:,} more" if len(lost) > NAMED else ""
        lines.append(f"  {len(lost):,} rows have no file, or a choice of several: {', '.join(lost[:NAMED])}{more}")
    if strangers:
        artists = len({item.tags[0] for item in strangers})
        lines.append(
            f"  {len(strangers):,} queries are left out: the database has nothing by their {artists:,} artists"
        )
    return "".join(f"{line}\n" for line in lines)
