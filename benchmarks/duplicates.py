"""How long the duplicates of a million images take to find: pairs above 0.8 and their components, exactly.

`python benchmarks/duplicates.py --threads 2` makes unit descriptors of 512 numbers, a twentieth of them duplicated
(inner product about 0.9), and compares all with all in a process of its own for each way:

- bounds: `pairs_above` as it is: proposed from a table of fewer columns, whose products bound the true ones
- whole:  the same from the whole descriptors
- single: whole, where the processor may not shorten float32 to bfloat16
- hnsw:   `indexed_pairs`, and the share of the true pairs that it finds

`noise` are descriptors without structure, the worst case for the bounds; `styles` lie about 1,000 centres in a space
whose axes fade, as those of images do. By default the first rows (`--rows`) are compared with all `--images`:
`ready` are the seconds until the first block of them is done, tables made included, `wall` and `cpu` until all are, and
`whole_min` is an estimate: `ready`, and `ns_per_pair` for the pairs after it. With `--rows 0` nothing is estimated.
`peak_mib` is the largest memory of the process, its libraries and mapped pages of the descriptors included;
`anon_mib` is what of it is not pages of a file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from record import write_table

THRESHOLD = 0.8
DIM = 512


def write_descriptors(file: Path, n: int, styles: bool, seed: int = 0) -> int:
    """Unit descriptors on disk; each of the last n/20 is a disturbed copy of one of the first. Returns the copies."""
    rng = np.random.default_rng(seed)
    fade = 0.99 ** np.arange(DIM, dtype=np.float32) if styles else np.ones(DIM, dtype=np.float32)
    centres = rng.standard_normal((1000, DIM), dtype=np.float32) * fade * (0.8 if styles else 0)
    out = np.lib.format.open_memmap(file, "w+", np.float32, (n, DIM))
    copies = n // 20
    for start in range(0, n - copies, 8192):
        block = rng.standard_normal((min(8192, n - copies - start), DIM), dtype=np.float32) * fade
        block += centres[rng.integers(len(centres), size=len(block))]
        out[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    for start in range(n - copies, n, 8192):
        block = out[start - (n - copies) : min(start + 8192, n) - (n - copies)]
        block = block + 0.5 / DIM**0.5 * rng.standard_normal(block.shape, dtype=np.float32)
        out[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return copies


def work(way: str, file: Path, rows: int, threads: int, results: multiprocessing.Queue) -> None:
    """One way, once, in this process: seconds, pairs, memory."""
    import torch

    from stylesim.curation.deduplicate.disjoint_sets import DisjointSets
    from stylesim.retrieval import inner_products, similar_pairs

    torch.set_num_threads(threads)
    if way in ("whole", "single"):
        similar_pairs.WIDTHS = (DIM,)
    if way == "single":
        inner_products.has_reduced_precision = lambda device: False  # type: ignore[assignment]
    vectors, recall = np.load(file, mmap_mode="c"), ""
    n, start, marks = len(vectors), (time.perf_counter(), time.process_time()), []
    components, found = DisjointSets(n), 0
    if way == "hnsw":
        import faiss

        faiss.omp_set_num_threads(threads)
        indexed = similar_pairs.indexed_pairs(vectors, threshold=THRESHOLD, kind="hnsw")
        blocks, recall = [indexed.pairs], round(indexed.recall, 4)
    else:
        blocks = similar_pairs.pairs_above(vectors, threshold=THRESHOLD)
    for block in blocks:
        components.join(block.left, block.right)
        found += len(block.left)
        if block.done > (marks[-1][0] if marks else 0):
            marks.append((block.done, time.perf_counter() - start[0], time.process_time() - start[1]))
        if rows and block.done >= rows:
            break
    (first, ready, ready_cpu), (done, wall, cpu) = marks[0], marks[-1]
    row: dict[str, object] = {"ready": round(ready, 1), "wall": round(wall, 1), "cpu": round(cpu, 1)}
    if compared := comparisons(n, done) - comparisons(n, first):
        rate = (wall - ready) / compared
        row["ns_per_pair"] = round(rate * 1e9, 2)
        row["cpu_ns_per_pair"] = round((cpu - ready_cpu) / compared * 1e9, 2)
        row["whole_min"] = round((ready + rate * (comparisons(n, n) - comparisons(n, first))) / 60, 1)
    else:
        row |= {"ns_per_pair": "", "cpu_ns_per_pair": "", "whole_min": round(wall / 60, 1)}
    results.put(row | {"pairs": found, "recall": recall} | memory())


def comparisons(n: int, rows: int) -> int:
    """Of the first rows with all rows after them."""
    return rows * n - rows * (rows + 1) // 2


def memory() -> dict[str, int]:
    """The most that this process has had, and what of it now is its own and no page of a file, in MiB."""
    try:
        status = Path("/proc/self/status").read_text()
        return {
            name: int(re.findall(rf"{key}:\s+(\d+)", status)[0]) // 1024
            for name, key in (("peak_mib", "VmHWM"), ("anon_mib", "RssAnon"))
        }
    except (OSError, IndexError):
        return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "anon_mib": 0}


def run(way: str, file: Path, rows: int, threads: int) -> dict[str, object]:
    """One way, once, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=work, args=(way, file, rows, threads, results))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{way} failed")
    return results.get()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000, help="descriptors (default: 1000000)")
    parser.add_argument("--rows", type=int, default=8192, help="of them compared with all; 0: all (default: 8192)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=["bounds", "whole", "single"])
    parser.add_argument("--kinds", nargs="+", default=["noise", "styles"], choices=["noise", "styles"])
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in given.kinds:
            file = Path(folder) / f"{kind}.npy"
            copies = write_descriptors(file, given.images, kind == "styles")
            for way in given.ways:
                rows.append({"kind": kind, "way": way, "copies": copies} | run(way, file, given.rows, given.threads))
                print(rows[-1], flush=True)
            file.unlink()
    setting = {"images": given.images, "rows": given.rows, "dim": DIM, "threads": given.threads}
    write_table("duplicates", rows, setting, ("torch", "numpy"))


if __name__ == "__main__":
    sys.exit(main())
