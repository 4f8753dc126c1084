"""A user's own image files: a folder for each label, or a table of paths and tags."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stylesim.core.errors import DataError
from stylesim.core.file_names import find_file, path_parts, printable
from stylesim.core.image_folders import describe_suffixes, holds_image, image_files, visible_files
from stylesim.core.images import EXTENSIONS
from stylesim.data.image_tables import TABLES, image_keys, is_table, label_cells, read_image_table
from stylesim.data.labels import cell_text, clean_label, clean_labels, is_no_label, split_tags, without_decimals
from stylesim.data.roots import Root
from stylesim.data.sample import Sample
from stylesim.data.shards.shard_index import INDEX, shard_files

DESCRIPTORS = "descriptors.npy"
"""The file by which a folder of descriptors is recognised."""


def find_samples(source: str | Path, name: str | None = None) -> list[Sample]:
    """Find the images of a folder or a table; no image is opened.

    In a folder, the tag of an image is the first folder on its path; images directly in the folder have no tag. A
    table (CSV, TSV or Parquet) has a column `path` (or another of `PATH_COLUMNS`), relative to the table, and may have
    `tags` (or another of `LABEL_COLUMNS`: a list, or text separated by `|` or `;`), `content`, and `key`, which
    replaces the path in the id. Rows with the same path are one image, with the tags of all of them.

    Args:
        source: The folder or the table.
        name: First part of the ids `<name>/<path>`; by default the name of the folder or the table.

    Returns:
        Samples whose `image` is the path, ordered by id.

    Raises:
        DataError: If there is no such folder or table, or no image in it.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        samples = _samples_of_folder(path, name or printable(path.absolute().name))
    elif path.is_file() and is_table(path):
        samples = _samples_of_table(path, name or printable(path.stem))
    else:
        raise DataError(
            f"There is no folder of images and no table ({', '.join(TABLES)}) at {path.absolute()}: check the path."
        )
    if not samples:
        raise no_image(path)
    return sorted(samples, key=lambda sample: sample.id)


def lacks_images(folder: Path) -> bool:
    """Return whether a folder holds neither an image, nor indexed shards, nor descriptors that `embed` wrote."""
    return not any((folder / name).is_file() for name in (INDEX, DESCRIPTORS)) and not holds_image(folder)


def no_image(path: Path) -> DataError:
    """Return the error for a folder or a table without an image, which says what was found instead."""
    others = visible_files(path) if path.is_dir() else []
    found = f", found {describe_suffixes(others)}" if others else ""
    message = f"There is no image in {path.absolute()}: looked for {', '.join(EXTENSIONS)}{found}."
    if path.is_dir() and shard_files(path):
        message += f" If these are shards, index them first: stylesim index folder={path}"
    return DataError(message)


def _samples_of_folder(folder: Path, name: str) -> list[Sample]:
    samples, source = [], printable(folder)
    for file in image_files(folder):
        relative = file.relative_to(folder).as_posix()
        label, *others = path_parts(relative)
        tags = clean_labels([label]) if others else []
        samples.append(Sample(f"{name}/{printable(relative)}", file, tags, None, source))
    return samples


def _samples_of_table(table: Path, name: str) -> list[Sample]:
    frame = read_image_table(table)
    contents = without_decimals(frame["content"].tolist()) if "content" in frame else [None] * len(frame)
    rows = zip(frame["path"], image_keys(frame), label_cells(frame, table), contents, strict=True)
    tags: dict[str, dict[str, None]] = defaultdict(dict)
    content_of: dict[str, str | None] = {}
    key_of: dict[str, str] = {}
    for path, key, label, content in rows:
        tags[path].update(dict.fromkeys(split_tags(label)))
        content_of[path] = None if is_no_label(content) else clean_label(cell_text(content))
        key_of[path] = key
    files = {path: find_file(table.parent, path) for path in tags}
    if files and not any(os.path.isfile(file) for file in files.values()):
        raise DataError(
            f"None of the {len(files):,} images that {table} names exists; the first would be"
            f" {next(iter(files.values())).absolute()}. Give paths relative to the table, or absolute ones."
        )
    return [
        Sample(f"{name}/{key_of[path]}", file, list(tags[path]), content_of[path], printable(table))
        for path, file in files.items()
    ]


@dataclass(frozen=True)
class FileSource:
    """Image files as a source of training samples: each file counts as one shard, so that all are shuffled."""

    root: Root
    samples: tuple[Sample, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of samples in each shard: always 1."""
        return (1,) * len(self.samples)

    @cached_property
    def tags(self) -> dict[str, int]:
        """Number of images with each tag, ordered by tag."""
        return dict(sorted(Counter(tag for sample in self.samples for tag in sample.tags).items()))

    def read(self, number: int, positions: Sequence[int]) -> Iterator[Sample]:
        """Yield the one sample of shard `number` for each of the positions; its file is read when it is decoded."""
        yield from [self.samples[number]] * len(positions)


def hold_out(samples: Sequence[Sample], share: float) -> set[str]:
    """Choose images for validation, by a hash of their ids.

    Args:
        samples: All images.
        share: Fraction in [0, 1] of the images of each tag that has at least four; at least two of them are chosen.

    Returns:
        The ids of the chosen images.
    """
    ids_of_tag: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        for tag in sample.tags:
            ids_of_tag[tag].append(sample.id)
    held: set[str] = set()
    for _, ids in sorted(ids_of_tag.items()):
        if len(ids) >= 4:
            ranked = sorted(ids, key=lambda id: hashlib.sha1(id.encode()).digest())
            missing = max(2, round(share * len(ids))) - len(held.intersection(ids))
            held.update([id for id in ranked if id not in held][: max(missing, 0)])
    return held
