"""Measures how long it takes to find the near-duplicates among a million images: pairs above 0.8, and their components.

`python benchmarks/duplicates.py --threads 2` generates unit descriptors of 512 numbers, a twentieth of them duplicated
(inner product about 0.9), and compares all with all, with each method in a separate process:

- bounds: `pairs_above` as it is: candidates from a table with fewer columns, whose products bound the true ones
- whole:  the same with candidates from the whole descriptors
- single: whole, without the processor's bfloat16 products
- hnsw:   `indexed_pairs`, and the fraction of the true pairs that it finds

`noise` are descriptors without structure, the worst case for the bounds; `styles` lie around 1,000 centres in a space
with axes of decreasing variance, like descriptors of images. By default the first rows (`--rows`) are compared with all
`--images`: `ready` is the time in seconds until the first block of them is done, including the tables, `wall` and `cpu`
until all blocks are, and `whole_min` is an estimate: `ready`, and `ns_per_pair` for the pairs after it. With `--rows 0`
nothing is estimated. `peak_mib` is the peak memory of the process, including its libraries and mapped pages of the
descriptors; `anon_mib` is the part of it that is not mapped from a file.
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
    """Write unit descriptors, the last n/20 of which are perturbed copies of the first; return the number of copies."""
    rng = np.random.default_rng(seed)
    scales = 0.99 ** np.arange(DIM, dtype=np.float32) if styles else np.ones(DIM, dtype=np.float32)
    centres = rng.standard_normal((1000, DIM), dtype=np.float32) * scales * (0.8 if styles else 0)
    out = np.lib.format.open_memmap(file, "w+", np.float32, (n, DIM))
    copies = n // 20
    for start in range(0, n - copies, 8192):
        block = rng.standard_normal((min(8192, n - copies - start), DIM), dtype=np.float32) * scales
        block += centres[rng.integers(len(centres), size=len(block))]
        out[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    for start in range(n - copies, n, 8192):
        block = out[start - (n - copies) : min(start + 8192, n) - (n - copies)]
        block = block + 0.5 / DIM**0.5 * rng.standard_normal(block.shape, dtype=np.float32)
        out[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return copies


def measure_here(method: str, file: Path, rows: int, threads: int, results: multiprocessing.Queue) -> None:
    """Run one method once in this process; put seconds, pairs and memory into `results`."""
    import torch

    from stylesim.curation.deduplicate.disjoint_sets import DisjointSets
    from stylesim.retrieval import inner_products, similar_pairs

    torch.set_num_threads(threads)
    if method in ("whole", "single"):
        similar_pairs.WIDTHS = (DIM,)
    if method == "single":
        inner_products.has_reduced_precision = lambda device: False
    vectors, recall = np.load(file, mmap_mode="c"), ""
    n, start, marks = len(vectors), (time.perf_counter(), time.process_time()), []
    components, pairs = DisjointSets(n), 0
    if method == "hnsw":
        import faiss

        faiss.omp_set_num_threads(threads)
        indexed = similar_pairs.indexed_pairs(vectors, threshold=THRESHOLD, kind="hnsw")
        blocks, recall = [indexed.pairs], round(indexed.recall, 4)
    else:
        blocks = similar_pairs.pairs_above(vectors, threshold=THRESHOLD)
    for block in blocks:
        components.join(block.left, block.right)
        pairs += len(block.left)
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
    results.put(row | {"pairs": pairs, "recall": recall} | memory())


def comparisons(n: int, rows: int) -> int:
    """Return the number of comparisons of the first `rows` rows with all rows after them."""
    return rows * n - rows * (rows + 1) // 2


def memory() -> dict[str, int]:
    """Return the peak memory of this process, and the memory that is not mapped from a file now, in MiB."""
    try:
        status = Path("/proc/self/status").read_text()
        return {
            name: int(re.findall(rf"{key}:\s+(\d+)", status)[0]) // 1024
            for name, key in (("peak_mib", "VmHWM"), ("anon_mib", "RssAnon"))
        }
    except (OSError, IndexError):
        return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "anon_mib": 0}


def run(method: str, file: Path, rows: int, threads: int) -> dict[str, object]:
    """Run one method once in a separate process."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measure_here, args=(method, file, rows, threads, results))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{method} failed")
    return results.get()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000, help="number of descriptors (default: 1000000)")
    parser.add_argument(
        "--rows", type=int, default=8192, help="rows compared with all others; 0 is all (default: 8192)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=["bounds", "whole", "single"])
    parser.add_argument("--kinds", nargs="+", default=["noise", "styles"], choices=["noise", "styles"])
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in args.kinds:
            file = Path(folder) / f"{kind}.npy"
            copies = write_descriptors(file, args.images, kind == "styles")
            for method in args.methods:
                rows.append(
                    {"kind": kind, "method": method, "copies": copies} | run(method, file, args.rows, args.threads)
                )
                print(rows[-1], flush=True)
            file.unlink()
    settings = {"images": args.images, "rows": args.rows, "dim": DIM, "threads": args.threads}
    write_table("duplicates", rows, settings, ("torch", "numpy"))


if __name__ == "__main__":
    sys.exit(main())
