"""Write a descriptor set in pieces, so that an interrupted run can continue, or collect it in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from stylesim.core.errors import StylesimError
from stylesim.retrieval.descriptor_set import (
    COLUMNS,
    ITEM_SCHEMA,
    DescriptorSet,
    arrow_items,
    item_table,
    pandas_items,
    partial_folder,
    refuse_bad_descriptors,
    require_new_folder,
    write_items_and_rename,
)


class DescriptorBuffer:
    """A DescriptorWriter without a disk: for sets that are looked at once, such as a probe's."""

    def __init__(self, dim: int, meta: dict[str, Any]) -> None:
        self.meta, self.done = meta, set[str]()
        self._batches = [(np.empty((0, dim), dtype=np.float32), item_table(()))]

    def add(self, descriptors: Float[np.ndarray, "b d"], items: pd.DataFrame) -> None:
        refuse_bad_descriptors(descriptors, items["id"].tolist())
        self._batches.append((descriptors, items))
        self.done.update(items["id"])

    def finish(self, **meta: Any) -> DescriptorSet:
        rows = item_table(row for _, items in self._batches for row in items.itertuples(index=False, name=None))
        return DescriptorSet(np.concatenate([vectors for vectors, _ in self._batches]), rows, self.meta | meta)


class DescriptorWriter:
    """Writes a descriptor set piece by piece beside its folder, and renames it into place at the end.

    A writer that finds the pieces of an interrupted one goes on from them: `done` maps the ids already
    described. Raises StylesimError where the folder exists already, or where the pieces were made with
    another `meta`.
    """

    def __init__(self, folder: Path | str, dim: int, meta: dict[str, Any], *, piece: int = 8192) -> None:
        self.folder = require_new_folder(folder)
        # Gram matrices have 100,000 numbers and more: a piece is 256 MiB at most.
        self.dim, self.meta, self.piece = dim, meta, min(piece, max(1, 2**28 // (4 * dim)))
        self._work = partial_folder(self.folder)
        self._work.mkdir(parents=True, exist_ok=True)
        begun = self._work / "begun.json"
        if not begun.exists():
            _write_text(begun, json.dumps(meta, indent=1))
        elif json.loads(begun.read_text()) != json.loads(json.dumps(meta)):
            raise StylesimError(
                f"{self._work} holds the pieces of an interrupted run with another encoder or settings. "
                "Delete it to start afresh, or choose another output folder."
            )
        self._pieces = sorted(self._work.glob("piece-*.parquet"))
        self.done = {name for file in self._pieces for name in pq.read_table(file, columns=["id"])["id"].to_pylist()}
        self._waiting: list[pa.Table] = []

    def add(self, descriptors: Float[np.ndarray, "b d"], items: pd.DataFrame) -> None:
        """Take a batch. NaN, infinite and zero descriptors raise StylesimError, naming the ids."""
        refuse_bad_descriptors(descriptors, items["id"].tolist())
        flat = pa.array(np.ascontiguousarray(descriptors, dtype=np.float32).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, descriptors.shape[1])
        self._waiting.append(arrow_items(items).append_column("descriptor", column))
        self.done.update(items["id"])
        if sum(len(table) for table in self._waiting) >= self.piece:
            self.flush()

    def flush(self) -> None:
        """Put what was added on disk: what an interruption can no longer lose."""
        if self._waiting:
            file = self._work / f"piece-{len(self._pieces):06d}.parquet"
            hidden = file.with_suffix(".writing")
            pq.write_table(pa.concat_tables(self._waiting), hidden)
            self._pieces.append(hidden.rename(file))
            self._waiting.clear()

    def finish(self, **meta: Any) -> DescriptorSet:
        """Join the pieces in the order of their positions, add `meta`, rename into place, open the set."""
        self.flush()
        empty = ITEM_SCHEMA.empty_table()
        items = pa.concat_tables([empty, *(pq.read_table(file, columns=list(COLUMNS)) for file in self._pieces)])
        order = np.argsort(items["position"].to_numpy(), kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        shape, start = (len(order), self.dim), 0
        out = np.lib.format.open_memmap(self._work / "descriptors.npy", "w+", np.float32, shape)
        for file in self._pieces:
            flat = pq.read_table(file, columns=["descriptor"])["descriptor"].combine_chunks().flatten()
            rows = flat.to_numpy().reshape(-1, self.dim)
            out[place[start : start + len(rows)]] = rows
            start += len(rows)
        del out  # flushes the map
        for file in (*self._pieces, self._work / "begun.json"):
            file.unlink()
        write_items_and_rename(self._work, self.folder, pandas_items(items.take(order)), self.meta | meta)
        return DescriptorSet.load(self.folder)


def _write_text(file: Path, text: str) -> None:
    hidden = file.with_suffix(".writing")
    hidden.write_text(text)
    hidden.rename(file)
