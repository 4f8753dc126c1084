"""Collect a descriptor set batch by batch: on disk, so that an interrupted run can be continued, or in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from stylesim.core.errors import DataError
from stylesim.core.files import atomic_path, reserve_space, write_json
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
    write_items_and_meta,
)


class DescriptorBuffer:
    """Has the methods of DescriptorWriter, but keeps the set in memory, for sets that are evaluated immediately."""

    def __init__(self, dim: int, meta: dict[str, Any]) -> None:
        self.meta, self.done = meta, set[str]()
        self._batches = [(np.empty((0, dim), dtype=np.float32), item_table(()))]

    def add(self, descriptors: Float[np.ndarray, "b d"], items: pd.DataFrame) -> None:
        """Add a batch (see `DescriptorWriter.add`)."""
        refuse_bad_descriptors(descriptors, items["id"].tolist())
        self._batches.append((descriptors, items))
        self.done.update(items["id"])

    def finish(self, **meta: Any) -> DescriptorSet:
        """Join the batches in the order in which they were added.

        Args:
            **meta: Further entries of `meta`.

        Returns:
            The set.
        """
        rows = item_table(row for _, items in self._batches for row in items.itertuples(index=False, name=None))
        return DescriptorSet(np.concatenate([vectors for vectors, _ in self._batches]), rows, self.meta | meta)


class DescriptorWriter:
    """Writes a descriptor set in pieces to `<folder>.partial`, which becomes `folder` at the end.

    If an interrupted writer has left pieces there, this writer continues from them.

    Args:
        folder: The folder to create. It must not exist.
        dim: The number of dimensions of a descriptor.
        meta: How the set is made. It must agree with the `meta` of pieces that already exist.
        piece: Descriptors per piece; fewer if they are so wide that a piece would exceed 256 MiB.

    Attributes:
        done: The ids that have already been added, including those added by an interrupted writer.

    Raises:
        DataError: If the folder exists, or existing pieces were made with another `meta`.
    """

    def __init__(self, folder: Path | str, dim: int, meta: dict[str, Any], *, piece: int = 8192) -> None:
        self.folder = require_new_folder(folder)
        # Gram matrices have 100,000 values and more.
        self.dim, self.meta, self.piece = dim, meta, min(piece, max(1, 2**28 // (4 * dim)))
        self._work = partial_folder(self.folder)
        self._work.mkdir(parents=True, exist_ok=True)
        self._meta_file = self._work / "begun.json"
        if not self._meta_file.exists():
            write_json(self._meta_file, meta)
        elif not _agree(json.loads(self._meta_file.read_text()), json.loads(json.dumps(meta))):
            raise DataError(
                f"{self._work} holds the pieces of an interrupted run with another encoder or other settings. "
                "Delete it to start again, or choose another output folder."
            )
        self._pieces = sorted(self._work.glob("piece-*.parquet"))
        self.done = {name for file in self._pieces for name in pq.read_table(file, columns=["id"])["id"].to_pylist()}
        self._waiting: list[pa.Table] = []

    def add(self, descriptors: Float[np.ndarray, "b d"], items: pd.DataFrame) -> None:
        """Add a batch. A piece is written to disk as soon as it is full.

        Args:
            descriptors: The descriptors of the batch.
            items: One row per descriptor (see `DescriptorSet`).

        Raises:
            DataError: If a descriptor is NaN, infinite or zero.
        """
        refuse_bad_descriptors(descriptors, items["id"].tolist())
        flat = pa.array(np.ascontiguousarray(descriptors, dtype=np.float32).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, descriptors.shape[1])
        self._waiting.append(arrow_items(items).append_column("descriptor", column))
        self.done.update(items["id"])
        if sum(len(table) for table in self._waiting) >= self.piece:
            self._write_piece()

    def finish(self, **meta: Any) -> DescriptorSet:
        """Join the pieces, ordered by `position`, and rename the folder.

        Args:
            **meta: Further entries of `meta`.

        Returns:
            The set, with memory-mapped descriptors.
        """
        self._write_piece()
        empty = ITEM_SCHEMA.empty_table()
        items = pa.concat_tables([empty, *(pq.read_table(file, columns=list(COLUMNS)) for file in self._pieces)])
        order = np.argsort(items["position"].to_numpy(), kind="stable")
        new_row = np.empty_like(order)
        new_row[order] = np.arange(len(order))
        shape, start = (len(order), self.dim), 0
        out = np.lib.format.open_memmap(self._work / "descriptors.npy", "w+", np.float32, shape)
        reserve_space(self._work / "descriptors.npy")
        for file in self._pieces:
            flat = pq.read_table(file, columns=["descriptor"])["descriptor"].combine_chunks().flatten()
            rows = flat.to_numpy().reshape(-1, self.dim)
            out[new_row[start : start + len(rows)]] = rows
            start += len(rows)
        del out  # flushes the memory map
        write_items_and_meta(self._work, pandas_items(items.take(order)), self.meta | meta)
        self._work.rename(self.folder)
        # The last pattern matches the hidden files that a killed writer may have left.
        for file in (
            *self.folder.glob("piece-*.parquet"),
            self.folder / self._meta_file.name,
            *self.folder.glob(".*.partial"),
        ):
            file.unlink()
        return DescriptorSet.load(self.folder)

    def _write_piece(self) -> None:
        if self._waiting:
            file = self._work / f"piece-{len(self._pieces):06d}.parquet"
            with atomic_path(file) as partial:
                pq.write_table(pa.concat_tables(self._waiting), partial)
            self._pieces.append(file)
            self._waiting.clear()


def _agree(before: Any, now: Any) -> bool:
    """Return whether two `meta` agree in their common keys; other versions of stylesim may have other keys."""
    if isinstance(before, dict) and isinstance(now, dict):
        return all(_agree(before[key], now[key]) for key in before.keys() & now.keys())
    return before == now
