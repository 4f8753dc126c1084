"""A user's own images: a folder per label, or a table of paths and tags."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylesim.core.errors import StylesimError
from stylesim.core.images import EXTENSIONS
from stylesim.data.roots import Root
from stylesim.data.sample import Sample
from stylesim.data.shards.tar_reader import Slot

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".csv", ".tsv", ".parquet")
PATHS, LABELS = ("path", "name", "file"), ("tags", "label", "artist")


def read_samples(source: str | Path, name: str | None = None) -> list[Sample]:
    """The images of a folder or a table, ordered by id; `Sample.image` is the path, and no image is opened.

    Ids are `<name>/<path>`; `name` is that of the folder or the table, if none is given.

    In a folder, the name of its first folder is the tag of an image, and what lies at the top has none. A
    table (CSV, TSV, Parquet) has a column `path` (or `name`, `file`), relative to the table, and may have
    `tags` (or `label`, `artist`: a list, or text separated by `|` or `;`), `content`, and `key`, which stands in the
    id in place of the path. The rows of one path are one image.

    Raises `StylesimError` if there is no such folder or table, or no image in it.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        items = _items_of_folder(path, name or path.absolute().name)
    elif path.is_file() and path.suffix in TABLES:
        items = _items_of_table(path, name or path.stem)
    else:
        raise StylesimError(
            f"there is no folder of images and no table ({', '.join(TABLES)}) at {path.absolute()}: check data.root"
        )
    if not items:
        raise StylesimError(f"there is no image in {path.absolute()}: looked for {', '.join(EXTENSIONS)}")
    return sorted(items, key=lambda item: item.id)


def _items_of_folder(folder: Path, name: str) -> list[Sample]:
    items = []
    for file in folder.rglob("*"):
        inside = file.relative_to(folder)
        if file.suffix.lower() in EXTENSIONS and not any(part.startswith(".") for part in inside.parts):
            readable = os.fsencode(inside.as_posix()).decode("utf-8", "replace")
            tags = readable.split("/")[:1] if len(inside.parts) > 1 else []
            items.append(Sample(f"{name}/{readable}", file, tags, None, str(folder)))
    return items


def _items_of_table(table: Path, name: str) -> list[Sample]:
    frame = load_table(table)
    path_column = next((column for column in PATHS if column in frame), None)
    label_column = next((column for column in LABELS if column in frame), None)
    if path_column is None:
        raise StylesimError(
            f"{table} has the columns {', '.join(map(str, frame))}, and none of {', '.join(PATHS)}, which "
            f"would name the images"
        )
    columns = ([None] * len(frame) if c not in frame else frame[c] for c in (label_column, "content", "key"))
    tags: dict[str, dict[str, None]] = defaultdict(dict)
    content: dict[str, str | None] = {}
    keys: dict[str, str] = {}
    for path, label, what, key in zip(map(str, frame[path_column]), *columns, strict=True):
        tags[path].update(dict.fromkeys(_tags(label)))
        content[path] = None if _missing(what) else str(what)
        keys[path] = path if _missing(key) else str(key)
    files = {path: table.parent / path for path in tags}
    if files and not any(file.is_file() for file in list(files.values())[:1000]):
        raise StylesimError(
            f"no image that {table} names is there, not even {next(iter(files.values())).absolute()}: "
            f"give paths relative to the table, or absolute ones"
        )
    return [
        Sample(f"{name}/{keys[path]}", file, list(tags[path]), content[path], str(table))
        for path, file in files.items()
    ]


def load_table(table: Path) -> pd.DataFrame:
    """A CSV or TSV file, every cell as text, or a Parquet file. Raises `StylesimError` where it cannot be read."""
    import pandas as pd

    try:
        if table.suffix == ".parquet":
            return pd.read_parquet(table)
        return pd.read_csv(table, sep="\t" if table.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    except Exception as error:  # pandas and pyarrow raise what they like on a broken file
        raise StylesimError(f"{table} cannot be read as a table ({error})") from error


def _tags(label: Any) -> list[str]:
    """The tags of one cell: a list, text separated by `|` or `;`, or the number of a class."""
    if isinstance(label, str):
        return [tag for part in label.split("|") for text in part.split(";") if (tag := text.strip())]
    if _missing(label):
        return []
    return [str(tag) for tag in label] if isinstance(label, Iterable) else [str(label)]


def _missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell) or (isinstance(cell, float) and cell != cell)


@dataclass(frozen=True)
class Folder:
    """Files as a source of training images: each a shard of its own, so that a plan shuffles them all."""

    root: Root
    items: tuple[Sample, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        return (1,) * len(self.items)

    @cached_property
    def tags(self) -> dict[str, int]:
        """How many images have each tag."""
        return dict(sorted(Counter(tag for item in self.items for tag in item.tags).items()))

    def read(self, number: int, places: Sequence[int]) -> Iterator[Slot]:
        """The one image of "shard" `number`."""
        item = self.items[number]
        assert isinstance(item.image, Path)
        for _ in places:
            try:
                yield Slot(item.id, item.image.read_bytes(), {"tags": item.tags})
            except OSError as error:
                yield Slot(item.id, None, {}, f"the file cannot be read ({error})")


def hold_out(items: Sequence[Sample], share: float) -> set[str]:
    """Ids of about `share` of the images of each tag that has four or more; two at least."""
    by_tag: dict[str, list[str]] = defaultdict(list)
    for item in items:
        for tag in item.tags:
            by_tag[tag].append(item.id)
    held: set[str] = set()
    for _, ids in sorted(by_tag.items()):
        if len(ids) >= 4:
            ranked = sorted(ids, key=lambda id: hashlib.sha1(id.encode()).digest())
            missing = max(2, round(share * len(ids))) - len(held.intersection(ids))
            held.update([id for id in ranked if id not in held][: max(missing, 0)])
    return held
