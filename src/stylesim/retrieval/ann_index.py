"""Approximate nearest neighbours with faiss, for galleries too large to search exactly, with their measured recall."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stylesim.core.errors import ConfigError
from stylesim.retrieval.exact_search import MARGIN, Neighbours, rescore, search

CODEWORDS = 256
"""Codewords of each part of a product quantiser. Training it needs at least this many descriptors."""


@dataclass(frozen=True)
class AnnIndex:
    """A gallery and its faiss index.

    Attributes:
        kind: "ivf", "hnsw" or "pq".
        gallery: The descriptors that are indexed; may be a memory map.
        searcher: The faiss index. None if faiss is not installed; the search is then exact.
    """

    kind: str
    gallery: Float[np.ndarray, "g d"]
    searcher: Any


class ApproximateNeighbours(NamedTuple):
    """The neighbours that an index found, and its measured recall."""

    neighbours: Neighbours
    recall: float
    """Share of the true k nearest neighbours that were found, in [0, 1], over `sampled` queries."""
    sampled: int


def build_ann_index(gallery: Float[np.ndarray, "g d"], kind: Literal["ivf", "hnsw", "pq"] = "hnsw") -> AnnIndex:
    """Index a gallery by inner product for `approximate_search`.

    Args:
        gallery: The descriptors to index.
        kind: `ivf`: k-means cells, one in sixteen of which is searched. `hnsw`: a graph, which has the best recall, is
            the slowest to build, and keeps a second copy of the gallery in memory. `pq`: ivf over product-quantised
            codes of about one byte per 8 dimensions. ivf and pq use all GPUs if faiss supports them.

    Returns:
        The index. Without faiss (`pip install "stylesim[cpu]"`) its searches are exact.

    Raises:
        ConfigError: If `kind` is unknown, or `pq` has fewer than CODEWORDS descriptors.
    """
    if kind not in ("ivf", "hnsw", "pq"):
        raise ConfigError(f"The kind of an index must be ivf, hnsw or pq, got {kind!r}.")
    if kind == "pq" and len(gallery) < CODEWORDS:
        raise ConfigError(
            f"A pq index must be trained on at least {CODEWORDS} descriptors, got {len(gallery)}. Use an exact search"
            " for so small a gallery."
        )
    try:
        import faiss
    except ImportError:
        return AnnIndex(kind, gallery, None)

    n, d = gallery.shape
    cells = max(1, min(int(4 * math.sqrt(n)), n // 39))  # faiss warns if k-means has fewer than 39 points per cell
    parts = max(part for part in range(1, max(2, d // 8 + 1)) if d % part == 0)
    # "np" leaves out polysemous training: many times faster to build, and these searches do not use it.
    factory = {"ivf": f"IVF{cells},Flat", "hnsw": "HNSW32,Flat", "pq": f"IVF{cells},PQ{parts}np"}[kind]
    searcher: Any = faiss.index_factory(d, factory, faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        searcher.hnsw.efSearch = 256
    else:
        searcher.nprobe = max(1, cells // 16)
        if getattr(faiss, "get_num_gpus", int)():
            searcher = faiss.index_cpu_to_all_gpus(searcher)
        sample = np.random.default_rng(0).permutation(n)[: max(CODEWORDS, 64 * cells)]
        searcher.train(np.ascontiguousarray(gallery[np.sort(sample)], dtype=np.float32))
    for start in range(0, n, 65536):
        searcher.add(np.ascontiguousarray(gallery[start : start + 65536], dtype=np.float32))
    return AnnIndex(kind, gallery, searcher)


def approximate_search(
    index: AnnIndex, queries: Float[np.ndarray, "q d"], k: int, *, sample: int = 200, seed: int = 0
) -> ApproximateNeighbours:
    """Find the k nearest neighbours with an index, and measure its recall@k.

    The candidates of the index are scored and ranked in float64, as in `search`. Nothing is excluded: a query that is
    also in the gallery finds itself.

    Args:
        index: From `build_ann_index`.
        queries: Query descriptors.
        k: The number of neighbours.
        sample: The number of random queries that are also searched exactly, to measure the recall.
        seed: Seed of that sample.

    Returns:
        The neighbours, `[q k]`, and the measured recall.

    Raises:
        DataError, ConfigError: As for `search`.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(queries))[:sample])
    exact = search(queries[chosen], index.gallery, k).similarities
    neighbours = _look_up(index, queries, k) if index.searcher is not None else search(queries, index.gallery, k)
    # Compare similarities rather than rows: of two gallery images with equal similarity, either one is correct.
    finite = exact.isfinite()
    least = exact.masked_fill(~finite, torch.inf).amin(dim=1, keepdim=True)
    hits = int((neighbours.similarities[chosen] >= least).sum())
    return ApproximateNeighbours(neighbours, hits / max(1, int(finite.sum())), len(chosen))


def _look_up(index: AnnIndex, queries: Float[np.ndarray, "q d"], k: int) -> Neighbours:
    indices = torch.full((len(queries), k), -1)
    similarities = torch.full((len(queries), k), -torch.inf)
    depth, gallery = min(k, len(index.gallery)), torch.as_tensor(np.asarray(index.gallery))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in range(0, len(queries), 1024):
            part = np.ascontiguousarray(queries[start : start + 1024], dtype=np.float32)
            rows: Tensor = torch.from_numpy(index.searcher.search(part, min(k + MARGIN, len(index.gallery)))[1])
            counts = (rows >= 0).sum(dim=1)  # faiss puts -1 for missing neighbours last
            scores, neighbours = rescore(torch.from_numpy(part), gallery, rows, counts, depth, pool)
            indices[start : start + len(part), :depth] = neighbours
            similarities[start : start + len(part), :depth] = scores.float()
    return Neighbours(indices, similarities)
