"""How fast a retrieval set is scored: stylesim beside faiss flat and the published metrics, in one run.

`python benchmarks/search.py --threads 2` makes descriptors of as many images as WikiArt's split has (16,006 queries,
64,090 in the gallery, 768 numbers, 1,119 artists), and scores them in a process of its own for each way:

- ours:   `evaluate_descriptors`: exact neighbours, decided in float64, and every metric with its value per query
- single: the same where the processor may not shorten float32 to bfloat16, which decides nothing but takes longer
- faiss:  `faiss.IndexFlatIP`, then Recall@k, MRR@k and mAP@k as the CSD paper defines them, without a loop
- slice:  `search` of the first queries of a set of 500,000 in a gallery of 500,000, read from disk as it goes

Seconds are medians over the rounds: `wall`, and `cpu`, which other people's load changes less. `peak_mib` is the
largest memory that the process ever had, its libraries, the descriptors and (slice) mapped pages of the file included.
`whole_h` of the slice is an estimate: its wall time times 500,000 / its queries. No other row is estimated.
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
"""By how much a metric may differ, since faiss decides near ties in float32."""


def write_descriptors(folder: Path, name: str, n: int, dim: int, artists: int, seed: int) -> None:
    """Unit descriptors scattered about their artists' centres, as loosely as two works of one artist resemble."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((artists, dim), dtype=np.float32)
    artist = rng.integers(artists, size=n)
    out = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (n, dim))
    for start in range(0, n, 8192):
        some = artist[start : start + 8192]
        block = 0.25 * centres[some] + rng.standard_normal((len(some), dim), dtype=np.float32)
        out[start : start + 8192] = block / np.linalg.norm(block, axis=1, keepdims=True)
    np.save(folder / f"{name}-artists.npy", artist)


def ours(folder: Path) -> dict[str, float]:
    """Every metric, by stylesim."""
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


def single(folder: Path) -> dict[str, float]:
    """Ours, without bfloat16."""
    from stylesim.retrieval import inner_products

    inner_products.has_reduced_precision = lambda device: False  # type: ignore[assignment]
    return ours(folder)


def faiss(folder: Path) -> dict[str, float]:
    """The published way: neighbours by faiss, metrics by the definitions of the paper."""
    import faiss

    query, gallery = np.load(folder / "query.npy"), np.load(folder / "gallery.npy")
    ours, theirs = (np.load(folder / f"{name}-artists.npy") for name in ("query", "gallery"))
    start = clock()
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    neighbours = index.search(query, max(KS))[1]
    hits = theirs[neighbours] == ours[:, None]
    precision = np.cumsum(hits, axis=1) / np.arange(1, max(KS) + 1)
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, np.inf)
    metrics = {}
    for k in KS:
        found = first <= k
        metrics[f"recall@{k}"] = float(found.mean())
        metrics[f"paper_map@{k}"] = float(precision[:, :k].mean())
        metrics[f"paper_mrr@{k}"] = float((1 / first[found]).mean())
    return timed(start) | metrics


def sliced(folder: Path) -> dict[str, float]:
    """A few queries against a gallery of half a million, on disk."""
    from stylesim.retrieval.exact_search import search

    query, gallery = np.load(folder / "slice.npy"), np.load(folder / "large.npy", mmap_mode="c")
    start = clock()
    search(query, gallery, max(KS))
    return timed(start)


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def timed(start: tuple[float, float]) -> dict[str, float]:
    """Seconds since then."""
    wall, cpu = clock()
    return {"wall": wall - start[0], "cpu": cpu - start[1]}


WAYS = {"ours": ours, "single": single, "faiss": faiss, "slice": sliced}


def work(way: str, folder: Path, threads: int, results: multiprocessing.Queue) -> None:
    """One way, once, in this process."""
    import torch

    torch.set_num_threads(threads)
    if way == "faiss":
        import faiss

        faiss.omp_set_num_threads(threads)
    found = WAYS[way](folder)
    results.put(found | {"peak_mib": peak_mib()})


def peak_mib() -> float:
    """The most memory this process has had; not by getrusage alone, which counts what its parent had as well."""
    try:
        return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(way: str, folder: Path, threads: int) -> dict[str, float]:
    """One way, once, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=work, args=(way, folder, threads, results))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{way} failed")
    return results.get()


def measure(given: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Each way in turn, `rounds` times over, and a row for each."""
    for seed, name in enumerate(("query", "gallery")):
        write_descriptors(folder, name, getattr(given, name), given.dim, given.artists, seed + 1)
    write_descriptors(folder, "large", LARGE if given.slice else 1, given.dim, given.artists, 3)
    write_descriptors(folder, "slice", given.slice, given.dim, given.artists, 4)
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(given.rounds):
        for way in WAYS if given.slice else list(WAYS)[:-1]:
            found.setdefault(way, []).append(run(way, folder, given.threads))
            last = found[way][-1]
            print(f"round {number + 1}: {way} {last['wall']:.1f} s, {last['peak_mib']:,.0f} MiB", flush=True)
    for name, metric in found["faiss"][0].items():
        if "@" in name and abs(found["ours"][0][name] - metric) > AGREEMENT:
            raise SystemExit(f"{name}: ours is {found['ours'][0][name]}, by faiss and the formula it is {metric}")
    rows = []
    for way, rounds in found.items():
        median = {name: statistics.median(one[name] for one in rounds) for name in ("wall", "cpu", "peak_mib")}
        beside = statistics.median(one["wall"] for one in found["faiss"])
        row: dict[str, object] = {name: round(value, 1) for name, value in median.items()}
        row["of_faiss"] = "" if way == "slice" else round(median["wall"] / beside, 2)
        row["whole_h"] = round(median["wall"] * LARGE / given.slice / 3600, 1) if way == "slice" else ""
        row |= {name: round(rounds[0][name], 4) if name in rounds[0] else "" for name in ("recall@1", "paper_map@100")}
        rows.append({"way": way} | row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--query", type=int, default=16_006, help="queries (default: 16006)")
    parser.add_argument("--gallery", type=int, default=64_090, help="images in the gallery (default: 64090)")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--artists", type=int, default=1119)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slice", type=int, default=512, help=f"queries of the slice of {LARGE:,}; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(given, Path(folder))
    setting = {
        name: getattr(given, name) for name in ("query", "gallery", "dim", "artists", "slice", "rounds", "threads")
    }
    write_table("search", rows, setting, ("torch", "numpy", "faiss-cpu"))


if __name__ == "__main__":
    sys.exit(main())
