"""Evaluate retrieval on descriptor sets: neighbours, relevance and metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stylesim.core.errors import DataError
from stylesim.evaluation.labels import label_groups
from stylesim.evaluation.metrics import mean_metrics, query_metrics
from stylesim.evaluation.retrieval_spec import RetrievalSpec
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.exact_search import Neighbours, search_distributed
from stylesim.retrieval.groups import Groups, pairs_share_group, shares_group
from stylesim.retrieval.readouts import Readout


@dataclass(frozen=True)
class RetrievalResult:
    """The metrics of a retrieval set, and what its report needs."""

    metrics: dict[str, float]
    """As from `retrieval_metrics`, with `chance_recall@1`, `queries`, `gallery` and `queries_without_relevant`."""
    per_query: dict[str, Float[np.ndarray, " q"]]
    """As from `query_metrics`: the values that the metrics average, in the order of `queries`."""
    neighbours: Neighbours
    relevance: Bool[np.ndarray, "q k"]
    """Whether each neighbour is relevant."""
    queries: DescriptorSet
    gallery: DescriptorSet
    spec: RetrievalSpec


def evaluate_descriptors(
    queries: DescriptorSet,
    gallery: DescriptorSet | None,
    spec: RetrievalSpec,
    *,
    readout: Readout | None = None,
    device: str | torch.device = "cpu",
    block: int = 8192,
    rank: int = 0,
    world: int = 1,
) -> RetrievalResult:
    """Find the neighbours of every query and compute the metrics that `spec` describes.

    A gallery image that has the query's own id, or matches the query in `spec.distinct`, is neither found nor counted
    as relevant. `chance_recall@1` is the expected recall@1 of a random ranking.

    Args:
        queries: The queries.
        gallery: The gallery. None searches the queries themselves.
        spec: What is relevant, and at which ranks metrics are computed.
        readout: Transformation of both sides before they are compared. None compares the descriptors unchanged.
        device: Where neighbours are proposed (see `search`).
        block: Gallery rows per step.
        rank: This process's rank. The search is divided among the ranks; every rank gets all metrics.
        world: The world size.

    Returns:
        The metrics, and the neighbours that they were computed from.

    Raises:
        DataError: If a set is empty, or no query or gallery image has a value for `spec.relevant` or `spec.distinct`.
    """
    gallery = queries if gallery is None else gallery
    if spec.limit is not None:  # otherwise the descriptors would be copied for nothing
        queries = queries.select(spec.query_rows(queries.ids))
    if not len(queries) or not len(gallery):
        raise DataError(
            f"Retrieval needs at least one query and one gallery image, got {len(queries)} and {len(gallery)}."
        )
    ks = sorted({1, *spec.ks})  # tables and reports need the nearest neighbour
    relevant = label_groups(queries.items, gallery.items, spec.relevant)
    distinct = label_groups(queries.items, gallery.items, spec.distinct) if spec.distinct else (None, None)
    ids = {"query_ids": queries.ids, "gallery_ids": gallery.ids}
    vectors = (queries.descriptors, gallery.descriptors)
    neighbours = search_distributed(
        *(readout(*vectors, **ids) if readout else vectors),
        min(max(ks), len(gallery)),
        rank=rank,
        world=world,
        **ids,
        query_groups=distinct[0],
        gallery_groups=distinct[1],
        device=device,
        block=block,
    )
    n_relevant, n_candidates = _count(queries, gallery, relevant, distinct, block)
    relevance = _relevance(relevant, neighbours.indices)
    per_query = query_metrics(relevance, n_relevant, ks)
    metrics = mean_metrics(per_query) | {
        "chance_recall@1": float((n_relevant / n_candidates.clip(min=1)).mean()),
        "queries": len(queries),
        "gallery": len(gallery),
        "queries_without_relevant": int((n_relevant == 0).sum()),
    }
    for group in spec.groups:
        relevant = label_groups(queries.items, gallery.items, f"{group}:*")
        n_relevant, _ = _count(queries, gallery, relevant, distinct, block)
        group_metrics = mean_metrics(query_metrics(_relevance(relevant, neighbours.indices), n_relevant, ks))
        metrics |= {f"{group}_{name}": value for name, value in group_metrics.items()}
    return RetrievalResult(metrics, per_query, neighbours, relevance, queries, gallery, spec)


def _relevance(groups: tuple[Groups, Groups], indices: Int[Tensor, "q k"]) -> Bool[np.ndarray, "q k"]:
    """Return whether each neighbour shares a group with its query."""
    of_queries, of_gallery = groups
    if of_queries.ndim == 1:
        hits = (of_gallery[indices] == of_queries[:, None]) & (of_queries >= 0)[:, None]
    else:
        rows = zip(of_queries, indices, strict=True)
        hits = torch.stack(
            [(of_gallery[neighbours] & groups_of_query).any(dim=1) for groups_of_query, neighbours in rows]
        )
    return (hits & (indices >= 0)).numpy()


def _count(
    queries: DescriptorSet,
    gallery: DescriptorSet,
    relevant: tuple[Groups, Groups],
    distinct: tuple[Groups | None, Groups | None],
    block: int,
) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " q"]]:
    """Count the relevant images and all images in the gallery of each query, after the exclusions.

    The counts of a query depend only on its groups, so it is enough to compare each distinct combination of groups
    among the queries with each one in the gallery.
    """
    sides = zip(relevant, distinct, strict=True)
    (query_first, query_kind), (gallery_first, gallery_kind) = (
        _distinct_rows([groups for groups in side if groups is not None]) for side in sides
    )
    sizes = gallery_kind.bincount().double()
    counts = torch.zeros(2, len(query_first), dtype=torch.float64)
    for top in range(0, len(query_first), max(1, block // 16)):
        rows = slice(top, top + max(1, block // 16))
        q = query_first[rows]
        for g, size in zip(gallery_first.split(block), sizes.split(block), strict=True):
            allowed = torch.ones(len(q), len(g), dtype=torch.bool)
            if distinct[0] is not None and distinct[1] is not None:
                allowed = ~shares_group(distinct[0][q], distinct[1][g])
            hits = shares_group(relevant[0][q], relevant[1][g]) & allowed
            counts[:, rows] += torch.stack([hits.double() @ size, allowed.double() @ size])
    counts = counts[:, query_kind].long()
    # Subtract the query's own image where the gallery contains it.
    row_of = {name: row for row, name in enumerate(gallery.ids)}
    own_row = torch.tensor([row_of.get(name, -1) for name in queries.ids])
    in_gallery = (own_row >= 0).nonzero().flatten()
    allowed = torch.ones(len(in_gallery), dtype=torch.bool)
    if distinct[0] is not None and distinct[1] is not None:
        allowed = ~pairs_share_group(distinct[0][in_gallery], distinct[1][own_row[in_gallery]])
    hits = pairs_share_group(relevant[0][in_gallery], relevant[1][own_row[in_gallery]]) & allowed
    counts[:, in_gallery] -= torch.stack([hits, allowed]).long()
    return counts[0].numpy(), counts[1].numpy()


def _distinct_rows(groups: list[Groups]) -> tuple[Int[Tensor, " m"], Int[Tensor, " n"]]:
    """Return the first image of each distinct combination of groups, and the index of each image's combination."""
    parts = [np.ascontiguousarray(g.reshape(len(g), -1).numpy()).view(np.uint8) for g in groups]
    table = np.ascontiguousarray(np.concatenate(parts, axis=1))
    keys = table.view(np.dtype((np.void, table.shape[1])))[:, 0]
    _, first, kind = np.unique(keys, return_index=True, return_inverse=True)
    return torch.from_numpy(first), torch.from_numpy(kind)
