"""Measures how fast a retrieval set is evaluated, compared with faiss flat and the published metrics.

`python benchmarks/search.py --threads 2` generates as many descriptors as WikiArt's split has images (16,006 queries,
64,090 in the gallery, 768-d, 1,119 artists), and evaluates them with each method in a separate process:

- stylesim: `evaluate_descriptors`: exact neighbours, ranked in float64, and every metric with its value per query
- single:   the same without the processor's bfloat16 products; the result is the same, but it takes longer
- faiss:    `faiss.IndexFlatIP`, then Recall@k, MRR@k and mAP@k as the CSD paper defines them, without a loop
- slice:    `search` of the first queries of a set of 500,000 in a gallery of 500,000 that is read from disk

Seconds are medians over the rounds: `wall`, and `cpu`, which depends less on other load. `peak_mib` is the peak memory
of the process, including its libraries, the descriptors and (slice) mapped pages of the file. `whole_h` of the slice is
an estimate: its wall time times 500,000 / its queries. No other row is an estimate.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from record import write_table

KS = (1, 10, 100)
LARGE = 500_000
AGREEMENT = 1e-3
"""Largest difference of a metric, since faiss ranks near ties in float32."""


def write_descriptors(folder: Path, name: str, n: int, dim: int, artists: int, seed: int) -> None:
    """Write unit descriptors around the centre of their artist, about as similar as works of one artist are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((artists, dim), dtype=np.float32)
    artist = rng.integers(artists, size=n)
    out = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (n, dim))
    for start in range(0, n, 8192):
        artists_of_block = artist[start : start + 8192]
        block = 0.25 * centres[artists_of_block]
        block += rng.standard_normal((len(block), dim), dtype=np.float32)
        out[start : start + 8192] = block / np.linalg.norm(block, axis=1, keepdims=True)
    np.save(folder / f"{name}-artists.npy", artist)


def evaluate_with_stylesim(folder: Path) -> dict[str, float]:
    """Compute every metric with stylesim."""
    from stylesim.evaluation.evaluate_descriptors import evaluate_descriptors
    from stylesim.evaluation.retrieval_spec import RetrievalSpec
    from stylesim.retrieval.descriptor_set import DescriptorSet, item_table

    sets = {}
    for name in ("query", "gallery"):
        artists = np.load(folder / f"{name}-artists.npy")
        items = item_table((f"{name}/{i}", [f"artist:{a}"], None, name, i) for i, a in enumerate(artists))
        sets[name] = DescriptorSet(np.load(folder / f"{name}.npy"), items)
    start = clock()
    metrics = evaluate_descriptors(
        sets["query"], sets["gallery"], RetrievalSpec(["q"], ["g"], "artist:*", ks=KS)
    ).metrics
    return timed(start) | {name: value for name, value in metrics.items() if "paper" in name or "recall" in name}


def evaluate_without_bfloat16(folder: Path) -> dict[str, float]:
    """Compute every metric with stylesim, without bfloat16 products."""
    from stylesim.retrieval import inner_products

    inner_products.has_reduced_precision = lambda device: False
    return evaluate_with_stylesim(folder)


def evaluate_with_faiss(folder: Path) -> dict[str, float]:
    """Search the neighbours with faiss, and compute the metrics by the definitions of the paper."""
    import faiss

    query, gallery = np.load(folder / "query.npy"), np.load(folder / "gallery.npy")
    query_artists, gallery_artists = (np.load(folder / f"{name}-artists.npy") for name in ("query", "gallery"))
    start = clock()
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    neighbours = index.search(query, max(KS))[1]
    hits = gallery_artists[neighbours] == query_artists[:, None]
    precision = np.cumsum(hits, axis=1) / np.arange(1, max(KS) + 1)
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, np.inf)
    metrics = {}
    for k in KS:
        hit = first <= k
        metrics[f"recall@{k}"] = float(hit.mean())
        metrics[f"paper_map@{k}"] = float(precision[:, :k].mean())
        metrics[f"paper_mrr@{k}"] = float((1 / first[hit]).mean())
    return timed(start) | metrics


def search_slice(folder: Path) -> dict[str, float]:
    """Search a few queries in a gallery of half a million on disk."""
    from stylesim.retrieval.exact_search import search

    query, gallery = np.load(folder / "slice.npy"), np.load(folder / "large.npy", mmap_mode="c")
    start = clock()
    search(query, gallery, max(KS))
    return timed(start)


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def timed(start: tuple[float, float]) -> dict[str, float]:
    """Return the wall-clock and CPU seconds since `start`."""
    wall, cpu = clock()
    return {"wall": wall - start[0], "cpu": cpu - start[1]}


METHODS = {
    "stylesim": evaluate_with_stylesim,
    "single": evaluate_without_bfloat16,
    "faiss": evaluate_with_faiss,
    "slice": search_slice,
}


def measure_here(method: str, folder: Path, threads: int, results: multiprocessing.Queue) -> None:
    """Run one method once in this process."""
    import torch

    torch.set_num_threads(threads)
    if method == "faiss":
        import faiss

        faiss.omp_set_num_threads(threads)
    measured = METHODS[method](folder)
    results.put(measured | {"peak_mib": peak_mib()})


def peak_mib() -> float:
    """Return the peak memory of this process; getrusage alone includes that of its parent."""
    try:
        return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(method: str, folder: Path, threads: int) -> dict[str, float]:
    """Run one method once in a separate process."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measure_here, args=(method, folder, threads, results))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{method} failed")
    return results.get()


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Run every method in turn, `rounds` times; return a row for each."""
    for seed, name in enumerate(("query", "gallery")):
        write_descriptors(folder, name, getattr(args, name), args.dim, args.artists, seed + 1)
    write_descriptors(folder, "large", LARGE if args.slice else 1, args.dim, args.artists, 3)
    write_descriptors(folder, "slice", args.slice, args.dim, args.artists, 4)
    results: dict[str, list[dict[str, float]]] = {}
    for number in range(args.rounds):
        for method in METHODS if args.slice else list(METHODS)[:-1]:
            results.setdefault(method, []).append(run(method, folder, args.threads))
            last = results[method][-1]
            print(f"round {number + 1}: {method} {last['wall']:.1f} s, {last['peak_mib']:,.0f} MiB", flush=True)
    for name, metric in results["faiss"][0].items():
        if "@" in name and abs(results["stylesim"][0][name] - metric) > AGREEMENT:
            raise SystemExit(f"{name} is {results['stylesim'][0][name]} with stylesim, {metric} with faiss.")
    rows = []
    for method, rounds in results.items():
        median = {
            name: statistics.median(measured[name] for measured in rounds) for name in ("wall", "cpu", "peak_mib")
        }
        faiss_wall = statistics.median(measured["wall"] for measured in results["faiss"])
        row: dict[str, object] = {name: round(value, 1) for name, value in median.items()}
        row["of_faiss"] = "" if method == "slice" else round(median["wall"] / faiss_wall, 2)
        row["whole_h"] = round(median["wall"] * LARGE / args.slice / 3600, 1) if method == "slice" else ""
        row |= {name: round(rounds[0][name], 4) if name in rounds[0] else "" for name in ("recall@1", "paper_map@100")}
        rows.append({"method": method} | row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--query", type=int, default=16_006, help="queries (default: 16006)")
    parser.add_argument("--gallery", type=int, default=64_090, help="images in the gallery (default: 64090)")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--artists", type=int, default=1119)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slice", type=int, default=512, help=f"queries of the slice of {LARGE:,}; 0 skips it")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, Path(folder))
    settings = {
        name: getattr(args, name) for name in ("query", "gallery", "dim", "artists", "slice", "rounds", "threads")
    }
    write_table("search", rows, settings, ("torch", "numpy", "faiss-cpu"))


if __name__ == "__main__":
    sys.exit(main())
