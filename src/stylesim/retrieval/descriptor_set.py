"""DescriptorSet: descriptors of images with their labels, in memory or as a folder on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from stylesim.core.errors import DataError
from stylesim.core.files import atomic_path, write_json

ITEM_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "tags": pa.list_(pa.string()),
        "content": pa.string(),
        "source": pa.string(),
        "position": pa.int64(),
    }
)
COLUMNS = tuple(ITEM_SCHEMA.names)


@dataclass(frozen=True)
class DescriptorSet:
    """Descriptors of a set of images, with the labels of each image.

    On disk it is a folder of `descriptors.npy`, `items.parquet` and `meta.json`. Everything after the encoder works on
    descriptor sets, so it needs neither the images nor the model.

    Args:
        descriptors: float32, finite, without rows of zeros. Memory-mapped if loaded from a folder.
        items: One row per descriptor: `id` (unique), `tags` (list of str), `content` (str or None), `source` (str),
            and `position` (int, the image's position in its source; a damaged image leaves a gap).
        meta: How the set was made: encoder, preprocessing, and the damaged images that were left out.

    Raises:
        DataError: If descriptors and items differ in length, a column is missing, or an id occurs twice.
    """

    descriptors: Float[np.ndarray, "n d"]
    items: pd.DataFrame
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.descriptors.ndim != 2 or len(self.descriptors) != len(self.items):
            raise DataError(
                f"A descriptor set needs one descriptor [n d] per item, got descriptors {list(self.descriptors.shape)}"
                f" for {len(self.items)} items."
            )
        if missing := [name for name in COLUMNS if name not in self.items.columns]:
            raise DataError(
                f"The items of a descriptor set must have the columns {', '.join(COLUMNS)}; missing:"
                f" {', '.join(missing)}."
            )
        if duplicates := self.items.loc[self.items["id"].duplicated(), "id"].tolist():
            raise DataError(
                f"The ids of a descriptor set must be unique, but {len(duplicates)} occur more than once, the first"
                f" being {duplicates[0]!r}."
            )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ids(self) -> list[str]:
        """The ids of the images, in the order of the descriptors."""
        return self.items["id"].tolist()

    @property
    def damaged(self) -> list[tuple[str, str]]:
        """(id, reason) of the images that could not be embedded."""
        return [(name, reason) for name, reason in self.meta.get("damaged", [])]

    def select(self, rows: Sequence[int] | Int[np.ndarray, " m"]) -> DescriptorSet:
        """Return a set of the given rows, in the given order."""
        return DescriptorSet(self.descriptors[rows], self.items.iloc[rows].reset_index(drop=True), self.meta)

    def save(self, folder: Path | str) -> Path:
        """Write the set to a new folder, which appears only when it is complete.

        Args:
            folder: The folder to create.

        Returns:
            The folder.

        Raises:
            DataError: If the folder exists, or a descriptor is NaN, infinite or zero.
        """
        folder = require_new_folder(folder)
        refuse_bad_descriptors(self.descriptors, self.ids)
        with atomic_path(folder) as work:
            work.mkdir()
            np.save(work / "descriptors.npy", np.ascontiguousarray(self.descriptors, dtype=np.float32))
            write_items_and_meta(work, self.items, self.meta)
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> DescriptorSet:
        """Open the folder of a saved set. The descriptors stay on disk until they are read.

        Args:
            folder: A folder that `save`, `DescriptorWriter` or `stylesim embed` has written.

        Returns:
            The set, with memory-mapped descriptors.

        Raises:
            DataError: If the folder is missing, unfinished, or not a descriptor set.
        """
        folder = Path(folder)
        if not folder.exists() and partial_folder(folder).exists():
            raise DataError(
                f"{folder} is unfinished because embedding was interrupted. Run the same command again to continue it."
            )
        files = [folder / name for name in ("descriptors.npy", "items.parquet", "meta.json")]
        if missing := [file.name for file in files if not file.is_file()]:
            raise DataError(
                f"{folder} is not a descriptor set: it has no {' and no '.join(missing)}. Give the output folder of"
                " `stylesim embed`."
            )
        try:
            descriptors = np.load(files[0], mmap_mode="c")  # copy on write, because torch warns of read-only memory
            items = pandas_items(pq.read_table(files[1]))
            meta = json.loads(files[2].read_text())
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(
                f"{folder} cannot be read ({error}). Delete the folder and embed the images again."
            ) from error
        return cls(descriptors, items, meta)


def concatenate(sets: Sequence[DescriptorSet]) -> DescriptorSet:
    """Join several sets in order. The result has the `meta` of the first set and the damaged images of all sets.

    Raises:
        DataError: If two of them contain the same id.
    """
    if len(sets) == 1:
        return sets[0]
    damaged = [pair for part in sets for pair in part.damaged]
    return DescriptorSet(
        np.concatenate([part.descriptors for part in sets]),
        pd.concat([part.items for part in sets], ignore_index=True),
        sets[0].meta | {"damaged": damaged},
    )


def item_table(rows: Iterable[tuple[str, Sequence[str], str | None, str, int]]) -> pd.DataFrame:
    """Build the `items` of a set from rows of (id, tags, content, source, position)."""
    # With another dtype than object, pandas would turn a content of None into NaN.
    table = pd.DataFrame(list(rows), columns=list(COLUMNS), dtype=object)
    return table.astype({"position": np.int64})


def bad_descriptors(descriptors: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " m"]:
    """Return the rows that contain NaN or infinity or are all zeros, and therefore have no direction to compare."""
    bad = [
        start + np.flatnonzero(~np.isfinite(part).all(axis=1) | ~part.any(axis=1))
        for start in range(0, len(descriptors), 65536)
        for part in [descriptors[start : start + 65536]]
    ]
    return np.concatenate(bad) if bad else np.empty(0, dtype=np.int64)


def refuse_bad_descriptors(descriptors: Float[np.ndarray, "n d"], ids: Sequence[str]) -> None:
    """Raise a DataError that names up to five ids if a descriptor contains NaN or infinity or is all zeros."""
    if len(bad := bad_descriptors(descriptors)):
        names = ", ".join(str(ids[i]) for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise DataError(f"{len(bad)} of {len(ids)} descriptors are NaN, infinite or zero: {names}.")


def require_new_folder(folder: Path | str) -> Path:
    """Return the folder as a path, or raise a DataError if it exists."""
    folder = Path(folder)
    if folder.exists():
        raise DataError(f"{folder} already exists. Load it with DescriptorSet.load, or choose another folder.")
    return folder


def partial_folder(folder: Path) -> Path:
    """Return where a DescriptorWriter keeps the pieces of an unfinished set."""
    return folder.with_name(folder.name + ".partial")


def write_items_and_meta(folder: Path, items: pd.DataFrame, meta: dict[str, Any]) -> None:
    """Write `items.parquet` and `meta.json` into a folder."""
    pq.write_table(arrow_items(items), folder / "items.parquet")
    write_json(folder / "meta.json", meta)


def arrow_items(items: pd.DataFrame) -> pa.Table:
    """Convert the items of a set to Arrow."""
    return pa.Table.from_pandas(items[list(COLUMNS)], schema=ITEM_SCHEMA, preserve_index=False)


def pandas_items(table: pa.Table) -> pd.DataFrame:
    """Convert the items of a set from Arrow."""
    return item_table(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True))
