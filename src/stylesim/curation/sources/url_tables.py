"""Sources that are tables of URLs: LAION's metadata, and the published list of LAION-Styles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from os.path import commonpath
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylesim.core.errors import StylesimError
from stylesim.curation.sources.columns import Slice, numbered, ours, parquet_files, read_slice, slices, without
from stylesim.curation.sources.download import fetched
from stylesim.curation.stage import Piece, Stage, digest_of
from stylesim.curation.tags.names import bare, read_lists, shipped
from stylesim.curation.tags.tag_strings import read_tags, recognise
from stylesim.curation.tags.vocabulary import Lists, vocabulary


def laion(
    stage: Stage, *, path: str, fetch: bool = False, rows: int = 50_000, image_size: int = 384, threads: int = 64
) -> dict[str, Any]:
    """Stage 1 from LAION's metadata, or any parquet with a column `url`; columns are found whatever their case.

    `path` is a file, a folder of files, or a stage of another curation, whose URLs may then be fetched: there it pays
    to match tags and filter first. Files are read `rows` rows at once. With `fetch`, img2dataset downloads the images
    (see `fetched`); without, they stay URLs.
    """
    files = parquet_files(path)
    if (done := stage.begin(files=_digest(files))) is not None:
        return done
    read = partial(_laion_rows, root=_common(files))
    return _urls(stage, files, read, fetch, rows, image_size, threads)


def contrastyles(
    stage: Stage,
    *,
    path: str,
    column: str = "merged_tags",
    fetch: bool = False,
    rows: int = 50_000,
    image_size: int = 384,
    threads: int = 64,
) -> dict[str, Any]:
    """Stage 1 from the published `train.parquet` of LAION-Styles, tags included.

    `column` holds the tag strings, however they are written (see `tag_strings`): what was found is printed, and stands
    in the summary. Each becomes `artist:`, `medium:` or `movement:` by clip-interrogator's lists, whose names it has
    without punctuation and small words; one that no list has becomes `tag:`.

    Raises:
        StylesimError: If the column is not there, or its rows cannot be read as tags: the first of them are named.
    """
    files = parquet_files(path)
    if (done := stage.begin(files=_digest(files))) is not None:
        return done
    for file in files:
        if not {"url", column} <= set(names := pq.read_schema(file).names):
            raise StylesimError(f"{file} has the columns {', '.join(names)}: url and {column} are needed.")
    writing = recognise(_values(files, column, rows), _known(), f"{path}, column {column}")
    print(f"{path}: {column} holds {writing}")
    read = partial(_contrastyles_rows, column=column, separator=writing.separator, key=_key(files, rows))
    return _urls(stage, files, read, fetch, rows, image_size, threads, tags=writing.counts)


def _urls(
    stage: Stage,
    files: Sequence[Path],
    read: Callable[[Slice], Piece],
    fetch: bool,
    rows: int,
    image_size: int,
    threads: int,
    **notes: Mapping[str, int],
) -> dict[str, Any]:
    pieces = slices(files, rows)
    if fetch:
        return fetched(stage, read, pieces, image_size=image_size, threads=threads, **notes)
    return stage.finish(stage.each(read, pieces), **notes)


def _digest(files: Sequence[Path]) -> str:
    return digest_of(files, _common(files))


def _common(files: Sequence[Path]) -> Path:
    """The folder that all of them are below: files of one name in several folders are told apart by their paths."""
    return Path(commonpath([file.parent for file in files]))


def _laion_rows(piece: Slice, root: Path) -> Piece:
    table, first = read_slice(piece)
    return _with_urls(numbered(ours(table), piece.path.relative_to(root).with_suffix("").as_posix(), first))


def _contrastyles_rows(piece: Slice, column: str, separator: str, key: str | None) -> Piece:
    table, first = read_slice(piece)
    known = _known()
    tags = []
    for text in table[column].to_pylist():
        found = (known.get(bare(name), f"tag:{name.casefold()}") for name in read_tags(text, separator))
        tags.append(list(dict.fromkeys(found)))
    kept = ours(table.drop_columns([name for name in table.column_names if name in ("id", "key", "tags")]))
    kept = kept.append_column("tags", pa.array(tags, pa.list_(pa.string())))
    if key:
        kept = kept.append_column("id", table[key].cast(pa.string()))
    done = _with_urls(numbered(kept, piece.path.stem, first))
    return done._replace(counts={**done.counts, "unknown_tags": sum(t.startswith("tag:") for row in tags for t in row)})


def _with_urls(table: pa.Table) -> Piece:
    kept, lost = without(table, "url")
    return Piece(kept, {"rows": len(table), "without_url": lost, "images": len(kept)})


@lru_cache(maxsize=1)
def _known() -> dict[str, str]:
    return vocabulary(Lists(read_lists({}), shipped("aliases.txt")), "never").bare


def _values(files: Sequence[Path], column: str, rows: int) -> Iterator[Any]:
    for piece in slices(files, rows):
        yield from read_slice(piece, [column])[0][column].to_pylist()


def _key(files: Sequence[Path], rows: int) -> str | None:
    """The column that tells all rows apart, if one does."""
    for column in ("key", "md5"):
        if all(column in pq.read_schema(file).names for file in files):
            values = list(_values(files, column, rows))
            if None not in values and len(set(values)) == len(values):
                return column
    return None
