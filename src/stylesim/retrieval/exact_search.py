"""Exact nearest neighbours by inner product, in blocks: the full queries x gallery matrix is never in memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stylesim.retrieval.groups import Groups, paired_groups, pairs_share_group
from stylesim.retrieval.inner_products import (
    MAX_BLOCK_NUMBERS,
    MatmulMode,
    as_cpu_tensor,
    check_shapes,
    matmul_modes,
    matmul_precision,
    max_norms,
    round_scores,
)

MARGIN = 32
"""Number of candidates beyond k that are also scored in float64."""


class Neighbours(NamedTuple):
    """The k nearest gallery items of every query, the nearest first."""

    indices: Int[Tensor, "q k"]
    """Rows of the gallery, int64; -1 where a query has fewer than k candidates."""
    similarities: Float[Tensor, "q k"]
    """Inner products, float32; -inf where the index is -1."""


def search(
    queries: Float[Tensor | np.ndarray, "q d"],
    gallery: Float[Tensor | np.ndarray, "g d"],
    k: int,
    *,
    query_ids: Sequence[str] | None = None,
    gallery_ids: Sequence[str] | None = None,
    query_groups: Groups | None = None,
    gallery_groups: Groups | None = None,
    device: str | torch.device = "cpu",
    block: int = 8192,
) -> Neighbours:
    """Find the k gallery rows with the largest inner product with each query.

    The result depends neither on `block` nor on the hardware. The device proposes candidates in its fastest precision,
    and they are ranked in float64. If rounding errors could have hidden a neighbour of a query, its candidates are
    proposed again in a higher precision. Ties go to the lower gallery row.

    Args:
        queries: Query descriptors.
        gallery: Gallery descriptors; may be a memory map.
        k: The number of neighbours.
        query_ids: If given with `gallery_ids`, a query never finds the gallery item with its own id.
        gallery_ids: See `query_ids`.
        query_groups: If given with `gallery_groups`, a query never finds a gallery item that shares a group with it.
        gallery_groups: See `query_groups`.
        device: Where candidates are proposed. MPS has no float64, so the CPU is used instead.
        block: Gallery rows per step. Queries are processed in blocks of a sixteenth of this size.

    Returns:
        The neighbours, `[q k]`, on the CPU.

    Raises:
        DataError: If the shapes do not match, or a descriptor contains NaN or infinity.
        ConfigError: If k is below 1.
    """
    q, g = as_cpu_tensor(queries), as_cpu_tensor(gallery)
    check_shapes(q, g, k)
    device = "cpu" if torch.device(device).type == "mps" else device
    excluded = [paired_groups(query_groups, gallery_groups)] if query_groups is not None else []
    if query_ids is not None and gallery_ids is not None:
        codes = {name: code for code, name in enumerate(dict.fromkeys(gallery_ids))}
        pair = [torch.tensor([codes.get(name, -1) for name in ids]) for ids in (query_ids, gallery_ids)]
        if (pair[0] >= 0).any():
            excluded.append((pair[0], pair[1]))
    excluded = [(of_queries.to(device), of_gallery.to(device)) for of_queries, of_gallery in excluded]
    indices = torch.full((len(q), k), -1)
    similarities = torch.full((len(q), k), -torch.inf)
    modes = matmul_modes(q, g, torch.device(device))
    if not len(q):  # this rank has no queries; the gallery was checked above, as on every other rank
        return Neighbours(indices, similarities)
    query_block = max(1, block // 16)
    block = min(block, max(64, MAX_BLOCK_NUMBERS // max(1, g.shape[1])))  # Gram matrices have 100,000 values and more
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for rows in torch.arange(len(q)).split(query_block):
            for mode in modes:
                masks = [(of_queries[rows.to(device)], of_gallery) for of_queries, of_gallery in excluded]
                scores, neighbours, certain = _search_block(q[rows], g, k, mode, masks, block, device, pool)
                indices[rows, : neighbours.shape[1]] = neighbours
                similarities[rows, : neighbours.shape[1]] = scores.float()
                if not len(rows := rows[~certain]):
                    break
    return Neighbours(indices.masked_fill_(similarities.isinf(), -1), similarities)


def search_distributed(
    queries: Float[Tensor | np.ndarray, "q d"],
    gallery: Float[Tensor | np.ndarray, "g d"],
    k: int,
    *,
    rank: int,
    world: int,
    query_ids: Sequence[str] | None = None,
    query_groups: Groups | None = None,
    **options: Any,
) -> Neighbours:
    """Run `search` with the queries divided among the ranks.

    Args:
        queries: All query descriptors, the same on every rank.
        gallery: All gallery descriptors, the same on every rank.
        k: The number of neighbours.
        rank: This process's rank.
        world: The world size.
        query_ids: As for `search`, for all queries.
        query_groups: As for `search`, for all queries.
        **options: Further arguments of `search`, the same on every rank.

    Returns:
        The neighbours of all queries, on every rank: the same as from `search` on a single process.

    Raises:
        DataError, ConfigError: As for `search`, on all ranks together.
    """
    if world == 1:
        return search(queries, gallery, k, query_ids=query_ids, query_groups=query_groups, **options)
    # Check all queries, not only this rank's, so that all ranks raise together.
    check_shapes(as_cpu_tensor(queries), as_cpu_tensor(gallery), k)
    max_norms("queries", as_cpu_tensor(queries))
    own_rows = list(range(rank, len(queries), world))
    own = search(
        queries[own_rows],
        gallery,
        k,
        query_ids=None if query_ids is None else [query_ids[i] for i in own_rows],
        query_groups=None if query_groups is None else query_groups[own_rows],
        **options,
    )
    parts = [own] * world
    dist.all_gather_object(parts, own)
    order = np.argsort(np.concatenate([np.arange(part, len(queries), world) for part in range(world)]))
    return Neighbours(*(torch.cat(tensors)[order] for tensors in zip(*parts, strict=True)))


def rescore(
    q: Float[Tensor, "b d"],
    g: Float[Tensor, "g d"],
    rows: Int[Tensor, "b n"],
    counts: Int[Tensor, " b"],
    k: int,
    pool: ThreadPoolExecutor,
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """Rank the candidates of each query by descending float64 similarity, then by ascending gallery row.

    Args:
        q: Queries.
        g: Gallery.
        rows: Gallery rows of the candidates of each query.
        counts: How many of the `n` candidates of each query to use, the first ones.
        k: The number of neighbours to return.
        pool: Threads among which the queries are divided.

    Returns:
        The float64 similarities and the gallery rows of the best k; -inf and -1 beyond the candidates.
    """
    gallery, vectors, candidates = g.numpy(), q.double().numpy(), rows.numpy()
    scores, neighbours = np.full((len(q), k), -np.inf), np.full((len(q), k), -1)

    def rank(queries: range) -> None:
        for i in queries:
            own = np.sort(candidates[i, : counts[i]])
            # vecdot sums each row separately, so equal rows get equal sums whatever the other rows are.
            similarity = round_scores(np.vecdot(gallery[own].astype(np.float64), vectors[i]))
            order = np.argsort(-similarity, kind="stable")[:k]
            scores[i, : len(order)], neighbours[i, : len(order)] = similarity[order], own[order]

    list(pool.map(rank, [range(i, min(i + 32, len(q))) for i in range(0, len(q), 32)]))
    return torch.from_numpy(scores), torch.from_numpy(neighbours)


def _search_block(
    q: Float[Tensor, "b d"],
    g: Float[Tensor, "g d"],
    k: int,
    mode: MatmulMode,
    excluded: list[tuple[Tensor, Tensor]],
    block: int,
    device: str | torch.device,
    pool: ThreadPoolExecutor,
) -> tuple[Float[Tensor, "b r"], Int[Tensor, "b r"], Bool[Tensor, " b"]]:
    """Return scores and neighbours of one block of queries, and for which queries they are certainly correct."""
    wanted = min(int(mode.oversampling * k) + MARGIN, len(g))
    with matmul_precision(mode.matmul):
        proposed, rows = (x.cpu() for x in _propose(q.to(device, mode.dtype), g, wanted, excluded, block))
    candidates = proposed.isfinite()
    if mode.error_bound > 0:
        # A product more than two error bounds below the k-th proposal cannot be among the k nearest.
        candidates &= proposed >= proposed[:, :k][:, -1:] - 2 * mode.error_bound
    scores, neighbours = rescore(q, g, rows, candidates.sum(dim=1), min(k, wanted), pool)
    complete = (wanted == len(g)) | proposed[:, -1].isinf()
    return scores, neighbours, complete | (scores[:, -1] > proposed[:, -1] + mode.error_bound)


def _propose(
    q: Float[Tensor, "b d"],
    g: Float[Tensor, "g d"],
    n: int,
    excluded: list[tuple[Tensor, Tensor]],
    block: int,
) -> tuple[Float[Tensor, "b n"], Int[Tensor, "b n"]]:
    """Return the n largest products, descending, and their gallery rows, in the precision of q.

    In float64 the products are rounded and ties go to the lower row; in float32 ties go to any row. The first steps
    are small: once n products are known, only the few products above the smallest of them are looked at.
    """
    best = q.new_full((len(q), n), -torch.inf)
    rows = torch.zeros((len(q), n), dtype=torch.int64, device=q.device)
    scratch = q.new_empty(len(q) * block)  # reused, because mapping new memory for each step is slow
    start = 0
    while start < len(g):
        stop = min(len(g), start + min(block, max(4 * n, start)))
        products = scratch[: len(q) * (stop - start)].view(len(q), -1)
        torch.mm(q, g[start:stop].to(q.device, q.dtype).T, out=products)
        products = products if q.dtype == torch.float32 else round_scores(products)
        values, new_rows = _above(products, best.amin(dim=1), start, excluded)
        best, rows = torch.cat([best, values], dim=1), torch.cat([rows, new_rows], dim=1)
        if q.dtype == torch.float32:
            order = best.topk(n, dim=1, sorted=False).indices
        else:
            order = best.argsort(dim=1, descending=True, stable=True)[:, :n]
        best, rows, start = best.gather(1, order), rows.gather(1, order), stop
    best, order = best.sort(dim=1, descending=True, stable=True)
    return best, rows.gather(1, order)


def _above(
    products: Float[Tensor, "b p"], least: Float[Tensor, " b"], start: int, excluded: list[tuple[Tensor, Tensor]]
) -> tuple[Float[Tensor, "b m"], Int[Tensor, "b m"]]:
    """Return the products above each query's `least` that are not excluded, and their gallery rows.

    Rows are ascending; m is the largest number of them, and shorter rows are padded with -inf.
    """
    width = products.shape[1]
    if not (start or excluded):  # nothing is known yet, so every product qualifies
        return products, torch.arange(width, device=products.device).expand_as(products)
    if products.device.type == "cpu":  # numpy finds a few among many several times faster than torch
        at = torch.from_numpy(np.flatnonzero(products.numpy() > least.numpy()[:, None]))
    else:
        at = (products > least[:, None]).flatten().nonzero().flatten()
    query = at // width
    row = at - query * width + start
    for of_queries, of_gallery in excluded:
        parts = zip(query.split(1 << 16), row.split(1 << 16), strict=True)  # all multi-hot rows at once would be large
        allowed = torch.cat([~pairs_share_group(of_queries[a], of_gallery[b]) for a, b in parts])
        at, query, row = at[allowed], query[allowed], row[allowed]
    counts = query.bincount(minlength=len(products))
    most = int(counts.max())
    # For each query: the position of its first entry in a table of `most` columns, minus that in the flat list.
    shift = most * torch.arange(len(counts), device=query.device) - (counts.cumsum(0) - counts)
    position = torch.arange(len(query), device=query.device) + shift[query]
    values = products.new_full((len(counts) * most,), -torch.inf).scatter_(0, position, products.flatten()[at])
    rows = torch.zeros_like(values, dtype=torch.int64).scatter_(0, position, row)
    return values.view(len(counts), most), rows.view(len(counts), most)
