"""DescriptorSet: the seam between GPU work and everything after it, in memory or as a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from stylesim.core.errors import StylesimError

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
    """Descriptors of a set of images, with what is known of each.

    `descriptors`: float32 [n d], finite and not zero; memory-mapped when loaded from a folder.
    `items`: one row each, with `id` (unique), `tags` (list of str), `content` (str or None), `source`, and
    `position` (the item's place in its source; a damaged image leaves a gap).
    `meta`: how they were made: encoder, preprocessing, damaged images.
    """

    descriptors: Float[np.ndarray, "n d"]
    items: pd.DataFrame
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.descriptors.ndim != 2 or len(self.descriptors) != len(self.items):
            raise StylesimError(
                f"Descriptors {list(self.descriptors.shape)} are no row for each of {len(self.items)} items."
            )
        if missing := [name for name in COLUMNS if name not in self.items.columns]:
            raise StylesimError(f"The items of a descriptor set lack the column(s) {', '.join(missing)}.")
        if twice := self.items.loc[self.items["id"].duplicated(), "id"].tolist():
            raise StylesimError(f"{len(twice)} ids occur more than once, the first being {twice[0]!r}.")

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ids(self) -> list[str]:
        return self.items["id"].tolist()

    @property
    def damaged(self) -> list[tuple[str, str]]:
        """(id, reason) of the images that could not be described."""
        return [(name, reason) for name, reason in self.meta.get("damaged", [])]

    def select(self, rows: Sequence[int] | Int[np.ndarray, " m"]) -> DescriptorSet:
        """The set of these rows, in this order."""
        return DescriptorSet(self.descriptors[rows], self.items.iloc[rows].reset_index(drop=True), self.meta)

    def save(self, folder: Path | str) -> Path:
        """Write `descriptors.npy`, `items.parquet` and `meta.json`; the folder appears when it is complete.

        Raises StylesimError where the folder exists, and for NaN, infinite or zero descriptors, naming their
        ids.
        """
        folder = require_new_folder(folder)
        work = folder.with_name(folder.name + ".saving")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        refuse_bad_descriptors(self.descriptors, self.ids)
        np.save(work / "descriptors.npy", np.ascontiguousarray(self.descriptors, dtype=np.float32))
        write_items_and_rename(work, folder, self.items, self.meta)
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> DescriptorSet:
        """Open a folder; the descriptors stay on disk until they are read.

        Raises StylesimError where the folder is missing, unfinished, or not a descriptor set.
        """
        folder = Path(folder)
        if not folder.exists() and partial_folder(folder).exists():
            raise StylesimError(
                f"{folder} is unfinished: describing was interrupted. Run the same command again to go on."
            )
        files = [folder / name for name in ("descriptors.npy", "items.parquet", "meta.json")]
        if missing := [file.name for file in files if not file.is_file()]:
            raise StylesimError(f"{folder} is not a descriptor set: it has no {' and no '.join(missing)}.")
        try:
            descriptors = np.load(files[0], mmap_mode="c")  # copy on write: torch warns of read-only memory
            items = pandas_items(pq.read_table(files[1]))
            meta = json.loads(files[2].read_text())
        except (OSError, ValueError, pa.ArrowException) as error:
            raise StylesimError(f"{folder} cannot be read ({error}): describe the images again.") from error
        return cls(descriptors, items, meta)


def concatenate(sets: Sequence[DescriptorSet]) -> DescriptorSet:
    """One set of several, in their order; what is known of how they were made is that of the first.

    Raises StylesimError where two of them hold an image of the same id.
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
    """The `items` of a set from (id, tags, content, source, position) rows."""
    # As objects: pandas would make NaN of a content that is None.
    table = pd.DataFrame(list(rows), columns=list(COLUMNS), dtype=object)
    return table.astype({"position": np.int64})


def bad_descriptors(descriptors: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " m"]:
    """Rows that are NaN, infinite or zero, and so have no direction to compare."""
    bad = [
        start + np.flatnonzero(~np.isfinite(part).all(axis=1) | ~part.any(axis=1))
        for start in range(0, len(descriptors), 65536)
        for part in [descriptors[start : start + 65536]]
    ]
    return np.concatenate(bad) if bad else np.empty(0, dtype=np.int64)


def refuse_bad_descriptors(descriptors: Float[np.ndarray, "n d"], ids: Sequence[str]) -> None:
    """Raise StylesimError, naming up to five ids, where a descriptor is NaN, infinite or zero."""
    if len(bad := bad_descriptors(descriptors)):
        names = ", ".join(str(ids[i]) for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise StylesimError(f"{len(bad)} of {len(ids)} descriptors are NaN, infinite or zero: {names}.")


def require_new_folder(folder: Path | str) -> Path:
    folder = Path(folder)
    if folder.exists():
        raise StylesimError(f"{folder} exists already. Load it with DescriptorSet.load, or choose another folder.")
    return folder


def partial_folder(folder: Path) -> Path:
    return folder.with_name(folder.name + ".partial")


def write_items_and_rename(work: Path, folder: Path, items: pd.DataFrame, meta: dict[str, Any]) -> None:
    pq.write_table(arrow_items(items), work / "items.parquet")
    (work / "meta.json").write_text(json.dumps(meta, indent=1))
    work.rename(folder)


def arrow_items(items: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(items[list(COLUMNS)], schema=ITEM_SCHEMA, preserve_index=False)


def pandas_items(table: pa.Table) -> pd.DataFrame:
    return item_table(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True))
