"""Exact nearest neighbours by inner product, streamed: no table of queries by gallery is ever held."""

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
"""Candidates beyond k that are scored again in float64."""


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
    """The k gallery rows with the largest inner product with each query.

    A query never finds a gallery item of its own id (where ids are given), nor one that shares a group with
    it (where groups are given). Ties go to the lower gallery row, and the answer depends neither on `block`
    nor on the hardware: `device` proposes candidates in the shortest floats it is fast with, float64 decides,
    and a query for which the proposal's rounding could have lost a neighbour is proposed for again in longer
    floats. `block`: gallery rows per step; a sixteenth as many queries go together.

    Returned tensors lie on the CPU. Raises StylesimError for shapes that disagree, k < 1, and NaN or
    infinity.
    """
    q, g = as_cpu_tensor(queries), as_cpu_tensor(gallery)
    check_shapes(q, g, k)
    device = "cpu" if torch.device(device).type == "mps" else device  # float64 decides, and MPS has none
    excluded = [paired_groups(query_groups, gallery_groups)] if query_groups is not None else []
    if query_ids is not None and gallery_ids is not None:
        codes = {name: code for code, name in enumerate(dict.fromkeys(gallery_ids))}
        pair = [torch.tensor([codes.get(name, -1) for name in ids]) for ids in (query_ids, gallery_ids)]
        if (pair[0] >= 0).any():
            excluded.append((pair[0], pair[1]))
    excluded = [(ours.to(device), theirs.to(device)) for ours, theirs in excluded]
    indices = torch.full((len(q), k), -1)
    similarities = torch.full((len(q), k), -torch.inf)
    modes = matmul_modes(q, g, torch.device(device))
    if not len(q):  # the share of a process that has none; the others have checked the gallery too
        return Neighbours(indices, similarities)
    together = max(1, block // 16)
    block = min(block, max(64, MAX_BLOCK_NUMBERS // max(1, g.shape[1])))  # Gram matrices have 100,000 numbers and more
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for rows in torch.arange(len(q)).split(together):
            for mode in modes:
                masks = [(ours[rows.to(device)], theirs) for ours, theirs in excluded]
                scores, found, sure = _search_block(q[rows], g, k, mode, masks, block, device, pool)
                indices[rows, : found.shape[1]] = found
                similarities[rows, : found.shape[1]] = scores.float()
                if not len(rows := rows[~sure]):
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
    """`search`, with the queries shared out among the processes: the same answer, whole, on each of them.

    Every process calls it with the same arguments but its `rank`; those not named here are those of `search`.
    """
    if world == 1:
        return search(queries, gallery, k, query_ids=query_ids, query_groups=query_groups, **options)
    check_shapes(
        as_cpu_tensor(queries), as_cpu_tensor(gallery), k
    )  # of the whole, so that all processes refuse together
    max_norms("queries", as_cpu_tensor(queries))
    mine = list(range(rank, len(queries), world))
    found = search(
        queries[mine],
        gallery,
        k,
        query_ids=None if query_ids is None else [query_ids[i] for i in mine],
        query_groups=None if query_groups is None else query_groups[mine],
        **options,
    )
    shares = [found] * world
    dist.all_gather_object(shares, found)
    order = np.argsort(np.concatenate([np.arange(part, len(queries), world) for part in range(world)]))
    return Neighbours(*(torch.cat(parts)[order] for parts in zip(*shares, strict=True)))


def rescore(
    q: Float[Tensor, "b d"],
    g: Float[Tensor, "g d"],
    rows: Int[Tensor, "b n"],
    counts: Int[Tensor, " b"],
    k: int,
    pool: ThreadPoolExecutor,
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The best k of each query's first `counts` rows by (float64 similarity descending, gallery row ascending)."""
    gallery, vectors, candidates = g.numpy(), q.double().numpy(), rows.numpy()
    scores, found = np.full((len(q), k), -np.inf), np.full((len(q), k), -1)

    def decide(queries: range) -> None:
        for i in queries:
            mine = np.sort(candidates[i, : counts[i]])
            # A sum per row, whatever its neighbours are: equal rows get equal sums.
            similarity = round_scores(np.vecdot(gallery[mine].astype(np.float64), vectors[i]))
            order = np.argsort(-similarity, kind="stable")[:k]
            scores[i, : len(order)], found[i, : len(order)] = similarity[order], mine[order]

    list(pool.map(decide, [range(i, min(i + 32, len(q))) for i in range(0, len(q), 32)]))
    return torch.from_numpy(scores), torch.from_numpy(found)


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
    """Neighbours of one block of queries, and for which of them they are beyond doubt."""
    wanted = min(int(mode.oversampling * k) + MARGIN, len(g))
    with matmul_precision(mode.matmul):
        proposed, rows = (x.cpu() for x in _propose(q.to(device, mode.dtype), g, wanted, excluded, block))
    candidates = proposed.isfinite()
    if (
        mode.error_bound > 0
    ):  # what lies deeper cannot rise to the k-th place, even if both are off by as much as they can be
        candidates &= proposed >= proposed[:, :k][:, -1:] - 2 * mode.error_bound
    scores, found = rescore(q, g, rows, candidates.sum(dim=1), min(k, wanted), pool)
    complete = (wanted == len(g)) | proposed[:, -1].isinf()
    return scores, found, complete | (scores[:, -1] > proposed[:, -1] + mode.error_bound)


def _propose(
    q: Float[Tensor, "b d"],
    g: Float[Tensor, "g d"],
    n: int,
    excluded: list[tuple[Tensor, Tensor]],
    block: int,
) -> tuple[Float[Tensor, "b n"], Int[Tensor, "b n"]]:
    """The n best products, descending, and their rows, in the precision of q.

    In float32 ties fall anyhow; in float64 (round_scores) to the lower row. The first steps are short: once n
    products are known, only the few that exceed the least of them need more than a glance.
    """
    best = q.new_full((len(q), n), -torch.inf)
    rows = torch.zeros((len(q), n), dtype=torch.int64, device=q.device)
    scratch = q.new_empty(len(q) * block)  # or each step's products would have their pages mapped anew
    start = 0
    while start < len(g):
        stop = min(len(g), start + min(block, max(4 * n, start)))
        products = scratch[: len(q) * (stop - start)].view(len(q), -1)
        torch.mm(q, g[start:stop].to(q.device, q.dtype).T, out=products)
        products = products if q.dtype == torch.float32 else round_scores(products)
        values, here = _above(products, best.amin(dim=1), start, excluded)
        best, rows = torch.cat([best, values], dim=1), torch.cat([rows, here], dim=1)
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
    """Products above their query's bound that are not excluded, and their gallery rows, ascending; then -inf."""
    width = products.shape[1]
    if not (start or excluded):  # nothing is known yet, so all of them are
        return products, torch.arange(width, device=products.device).expand_as(products)
    if products.device.type == "cpu":  # numpy finds the few among the many several times faster
        at = torch.from_numpy(np.flatnonzero(products.numpy() > least.numpy()[:, None]))
    else:
        at = (products > least[:, None]).flatten().nonzero().flatten()
    query = at // width
    row = at - query * width + start
    for ours, theirs in excluded:
        parts = zip(query.split(1 << 16), row.split(1 << 16), strict=True)  # a multi-hot row each would be large
        allowed = torch.cat([~pairs_share_group(ours[a], theirs[b]) for a, b in parts])
        at, query, row = at[allowed], query[allowed], row[allowed]
    counts = query.bincount(minlength=len(products))
    most = int(counts.max())
    # Where each query's first one goes in a table of `most` columns, less where it stands in the list.
    shift = most * torch.arange(len(counts), device=query.device) - (counts.cumsum(0) - counts)
    slot = torch.arange(len(query), device=query.device) + shift[query]
    values = products.new_full((len(counts) * most,), -torch.inf).scatter_(0, slot, products.flatten()[at])
    rows = torch.zeros_like(values, dtype=torch.int64).scatter_(0, slot, row)
    return values.view(len(counts), most), rows.view(len(counts), most)
