"""Approximate neighbours by faiss's indices, for galleries too large to search exactly; never without their recall."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stylesim.core.errors import StylesimError
from stylesim.retrieval.exact_search import MARGIN, Neighbours, rescore, search

CODES = 256
"""Codewords of a product quantiser's part, and so the fewest descriptors it can be trained on."""


@dataclass(frozen=True)
class AnnIndex:
    """A gallery and faiss's index of it; `searcher` is None without faiss, and the search then exact."""

    kind: str
    gallery: Float[np.ndarray, "g d"]
    searcher: Any


class ApproximateNeighbours(NamedTuple):
    """What an index found, and how far that can be trusted."""

    neighbours: Neighbours
    recall: float
    """Share of the true k nearest that were found, in [0, 1], over `sampled` queries."""
    sampled: int


def build_ann_index(gallery: Float[np.ndarray, "g d"], kind: Literal["ivf", "hnsw", "pq"] = "hnsw") -> AnnIndex:
    """AnnIndex a gallery for `approximate_search` by inner product.

    `ivf`: cells of a k-means, a sixteenth of which are looked through; `hnsw`: a graph, the surest and slowest to
    build, with the gallery once more in memory; `pq`: ivf over codes of about a byte for 8 numbers. ivf and pq use
    all GPUs where faiss has them. Without faiss (`pip install "stylesim[cpu]"`) the search will be exact.

    Raises StylesimError for another kind, and for too few descriptors to train codes on.
    """
    if kind not in ("ivf", "hnsw", "pq"):
        raise StylesimError(f"There is no index {kind!r}: take ivf, hnsw or pq.")
    if kind == "pq" and len(gallery) < CODES:
        raise StylesimError(f"An index of codes needs {CODES} descriptors or more, not {len(gallery)}: search exactly.")
    try:
        import faiss
    except ImportError:
        return AnnIndex(kind, gallery, None)

    n, d = gallery.shape
    cells = max(1, min(int(4 * math.sqrt(n)), n // 39))  # k-means wants 39 descriptors for each
    parts = max(part for part in range(1, max(2, d // 8 + 1)) if d % part == 0)
    text = {"ivf": f"IVF{cells},Flat", "hnsw": "HNSW32,Flat", "pq": f"IVF{cells},PQ{parts}"}[kind]
    searcher: Any = faiss.index_factory(d, text, faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        searcher.hnsw.efSearch = 256
    else:
        searcher.nprobe = max(1, cells // 16)
        if getattr(faiss, "get_num_gpus", int)():
            searcher = faiss.index_cpu_to_all_gpus(searcher)
        sample = np.random.default_rng(0).permutation(n)[: max(CODES, 64 * cells)]
        searcher.train(np.ascontiguousarray(gallery[np.sort(sample)], dtype=np.float32))
    for start in range(0, n, 65536):
        searcher.add(np.ascontiguousarray(gallery[start : start + 65536], dtype=np.float32))
    return AnnIndex(kind, gallery, searcher)


def approximate_search(
    index: AnnIndex, queries: Float[np.ndarray, "q d"], k: int, *, sample: int = 200, seed: int = 0
) -> ApproximateNeighbours:
    """The k nearest that the index finds, scored and ordered in float64 as `search` does, and its recall@k.

    The recall is measured against exact search for `sample` of the queries, drawn at random. Nothing is excluded: where
    the queries are of the gallery, each finds itself. Raises StylesimError as `search` does.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(queries))[:sample])
    exact = search(queries[chosen], index.gallery, k).similarities
    found = _look_up(index, queries, k) if index.searcher is not None else search(queries, index.gallery, k)
    # By similarity and not by row: one of two equal images is as good as the other.
    there = exact.isfinite()
    least = exact.masked_fill(~there, torch.inf).amin(dim=1, keepdim=True)
    hits = int((found.similarities[chosen] >= least).sum())
    return ApproximateNeighbours(found, hits / max(1, int(there.sum())), len(chosen))


def _look_up(index: AnnIndex, queries: Float[np.ndarray, "q d"], k: int) -> Neighbours:
    indices = torch.full((len(queries), k), -1)
    similarities = torch.full((len(queries), k), -torch.inf)
    depth, gallery = min(k, len(index.gallery)), torch.as_tensor(np.asarray(index.gallery))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in range(0, len(queries), 1024):
            part = np.ascontiguousarray(queries[start : start + 1024], dtype=np.float32)
            rows: Tensor = torch.from_numpy(index.searcher.search(part, min(k + MARGIN, len(index.gallery)))[1])
            counts = (rows >= 0).sum(dim=1)  # what is missing stands last, as -1
            scores, found = rescore(torch.from_numpy(part), gallery, rows, counts, depth, pool)
            indices[start : start + len(part), :depth] = found
            similarities[start : start + len(part), :depth] = scores.float()
    return Neighbours(indices, similarities)
