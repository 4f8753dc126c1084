"""Read tables of URLs: LAION's metadata, and the published list of LAION-Styles."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from os.path import commonpath
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylesim.core.errors import DataError
from stylesim.core.stages.stage import listing_digest, require_positive
from stylesim.core.stages.stage_parts import Part
from stylesim.curation.sources.download import download_images
from stylesim.curation.sources.parquet_slices import Slice, parquet_files, read_slice, slices
from stylesim.curation.sources.standard_columns import drop_missing, standard_columns, with_ids
from stylesim.curation.stage import Stage
from stylesim.curation.tags.caption_words import published_form
from stylesim.curation.tags.name_lists import packaged_list, read_name_lists
from stylesim.curation.tags.tag_strings import detect_tag_format, read_tags
from stylesim.curation.tags.vocabulary import Lists, build_vocabulary

logger = logging.getLogger(__name__)


def laion(
    stage: Stage, *, path: str, fetch: bool = False, rows: int = 50_000, image_size: int = 384, threads: int = 64
) -> dict[str, Any]:
    """Run stage 1 on LAION's metadata, or any parquet file with a column `url` (in any case).

    Args:
        stage: The folder to write to.
        path: A file, a folder of files, or a stage of another curation, whose URLs can then be downloaded: it pays to
            match tags and filter first.
        fetch: Whether to download the images (see `download_images`); otherwise only their URLs are known.
        rows: Rows per part.
        image_size: The largest short side of a downloaded image, in px.
        threads: Simultaneous downloads.

    Returns:
        The counts of the stage.

    Raises:
        ConfigError: If there is no file, or as `Stage.begin` and `download_images` do.
        DataError: If a file is not a parquet file, or a download fails.
    """
    files = _find_files(path, rows=rows, image_size=image_size, threads=threads)
    if (done := stage.begin(files=_digest(files))) is not None:
        return done
    read = partial(_read_laion, root=_common_folder(files))
    return _read_or_download(stage, files, read, fetch, rows, image_size, threads)


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
    """Run stage 1 on the published `train.parquet` of LAION-Styles, including its tags.

    Each tag string becomes `artist:`, `medium:` or `movement:` according to clip-interrogator's lists, whose names it
    contains without punctuation and small words; one that is on no list becomes `tag:`.

    Args:
        stage: The folder to write to.
        path: A file, or a folder of files.
        column: The column of the tag strings, in any format (see `tag_strings`). The format that was detected is logged
            and written to the summary.
        fetch: As in `laion`.
        rows: As in `laion`.
        image_size: As in `laion`.
        threads: As in `laion`.

    Returns:
        The counts of the stage.

    Raises:
        ConfigError: As `laion` does.
        DataError: If the column is missing, or its rows cannot be read as tags: the message quotes the first of them.
    """
    files = _find_files(path, rows=rows, image_size=image_size, threads=threads)
    if (done := stage.begin(files=_digest(files))) is not None:
        return done
    for file in files:
        if not {"url", column} <= set(names := pq.read_schema(file).names):
            raise DataError(f"{file} must have the columns url and {column}, got {', '.join(names)}.")
    tag_format = detect_tag_format(_values(files, column, rows), _tags_by_published_form(), f"{path}, column {column}")
    logger.info("%s: %s holds %s", path, column, tag_format)
    key = _unique_column(files, rows)
    read = partial(_read_contrastyles, column=column, separator=tag_format.separator, key=key)
    return _read_or_download(stage, files, read, fetch, rows, image_size, threads, tags=tag_format.counts)


def _find_files(path: str, **counts: int) -> list[Path]:
    for key, value in counts.items():
        require_positive(f"source.{key}", value)
    return parquet_files(path)


def _read_or_download(
    stage: Stage,
    files: Sequence[Path],
    read: Callable[[Slice], Part],
    fetch: bool,
    rows: int,
    image_size: int,
    threads: int,
    **notes: Mapping[str, int],
) -> dict[str, Any]:
    pieces = slices(files, rows)
    if fetch:
        return download_images(stage, read, pieces, image_size=image_size, threads=threads, **notes)
    return stage.finish(stage.map_inputs(read, pieces), **notes)


def _digest(files: Sequence[Path]) -> str:
    return listing_digest(files, _common_folder(files))


def _common_folder(files: Sequence[Path]) -> Path:
    """Return the folder that contains all files, below which their paths are unique."""
    return Path(commonpath([file.parent for file in files]))


def _read_laion(piece: Slice, root: Path) -> Part:
    table, first = read_slice(piece)
    stem = piece.path.relative_to(root).with_suffix("").as_posix()
    return _require_urls(with_ids(standard_columns(table), stem, first))


def _read_contrastyles(piece: Slice, column: str, separator: str, key: str | None) -> Part:
    table, first = read_slice(piece)
    known = _tags_by_published_form()
    tags = []
    for text in table[column].to_pylist():
        row = (known.get(published_form(name), f"tag:{name.casefold()}") for name in read_tags(text, separator))
        tags.append(list(dict.fromkeys(row)))
    unused = [name for name in table.column_names if name in ("id", "key", "tags")]
    rows = standard_columns(table.drop_columns(unused))
    rows = rows.append_column("tags", pa.array(tags, pa.list_(pa.string())))
    if key:
        rows = rows.append_column("id", table[key].cast(pa.string()))
    part = _require_urls(with_ids(rows, piece.path.stem, first))
    unknown = sum(tag.startswith("tag:") for row in tags for tag in row)
    return part._replace(counts={**part.counts, "unknown_tags": unknown})


def _require_urls(table: pa.Table) -> Part:
    rows, missing = drop_missing(table, "url")
    return Part(rows, {"rows": len(table), "without_url": missing, "images": len(rows)})


@lru_cache(maxsize=1)
def _tags_by_published_form() -> dict[str, str]:
    return build_vocabulary(Lists(read_name_lists({}), packaged_list("aliases.txt")), "never").published


def _values(files: Sequence[Path], column: str, rows: int) -> Iterator[Any]:
    for piece in slices(files, rows):
        yield from read_slice(piece, [column])[0][column].to_pylist()


def _unique_column(files: Sequence[Path], rows: int) -> str | None:
    """Return the column (key or md5) whose values are unique over all files, or None."""
    for column in ("key", "md5"):
        if all(column in pq.read_schema(file).names for file in files):
            values = list(_values(files, column, rows))
            if None not in values and len(set(values)) == len(values):
                return column
    return None
