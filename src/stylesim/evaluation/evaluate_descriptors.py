"""From descriptor sets to retrieval metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stylesim.core.errors import StylesimError
from stylesim.evaluation.labels import label_groups
from stylesim.evaluation.metrics import mean_metrics, query_metrics
from stylesim.evaluation.retrieval_spec import RetrievalSpec
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.exact_search import Neighbours, search_distributed
from stylesim.retrieval.groups import Groups, pairs_share_group, shares_group
from stylesim.retrieval.readouts import Readout


@dataclass(frozen=True)
class RetrievalResult:
    """An evaluated retrieval: its metrics, and all that a picture of it needs."""

    metrics: dict[str, float]
    """As `retrieval_metrics`, with `chance_recall@1`, `queries`, `gallery` and `queries_without_relevant`."""
    per_query: dict[str, Float[np.ndarray, " q"]]
    """As `query_metrics`: what the metrics are means of, in the order of `queries`."""
    neighbours: Neighbours
    relevance: Bool[np.ndarray, "q k"]
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
    """Find every query's neighbours and score them as `spec` says.

    Without a gallery the queries are their own. A query's own id, and items that share `spec.distinct` with
    it, are out of its gallery: neither found nor counted as relevant. `chance_recall@1` is what a random
    ranking expects. Evaluate `spec.swapped()` as well for the content score. `readout` transforms the
    descriptors of both sides before they are compared (cosine without one). With `world` > 1 every process
    calls this with the whole sets, searches for its share of the queries, and gets all metrics.

    Raises StylesimError for an empty set, and where no query has a value of `spec.relevant` or
    `spec.distinct`.
    """
    gallery = queries if gallery is None else gallery
    if spec.limit is not None:  # selecting all would copy them
        queries = queries.select(spec.sample(queries.ids))
    if not len(queries) or not len(gallery):
        raise StylesimError(f"There are {len(queries)} queries and {len(gallery)} gallery images: both are needed.")
    ks = sorted({1, *spec.ks})  # tables and reports stand on the nearest neighbour
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
        scored = mean_metrics(query_metrics(_relevance(relevant, neighbours.indices), n_relevant, ks))
        metrics |= {f"{group}_{name}": value for name, value in scored.items()}
    return RetrievalResult(metrics, per_query, neighbours, relevance, queries, gallery, spec)


def _relevance(groups: tuple[Groups, Groups], indices: Int[Tensor, "q k"]) -> Bool[np.ndarray, "q k"]:
    """Whether each neighbour found shares a value with its query."""
    ours, theirs = groups
    if ours.ndim == 1:
        hits = (theirs[indices] == ours[:, None]) & (ours >= 0)[:, None]
    else:
        hits = torch.stack([(theirs[found] & mine).any(dim=1) for mine, found in zip(ours, indices, strict=True)])
    return (hits & (indices >= 0)).numpy()


def _count(
    queries: DescriptorSet,
    gallery: DescriptorSet,
    relevant: tuple[Groups, Groups],
    distinct: tuple[Groups | None, Groups | None],
    block: int,
) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " q"]]:
    """How many relevant items, and how many in all, each query's gallery holds after the exclusions.

    Samples with the same groups count alike, so each kind of query meets each kind of item once.
    """
    sides = zip(relevant, distinct, strict=True)
    (our_first, our_kind), (their_first, their_kind) = (_kinds([g for g in side if g is not None]) for side in sides)
    sizes = their_kind.bincount().double()
    counts = torch.zeros(2, len(our_first), dtype=torch.float64)
    for top in range(0, len(our_first), max(1, block // 16)):
        rows = slice(top, top + max(1, block // 16))
        ours = our_first[rows]
        for theirs, size in zip(their_first.split(block), sizes.split(block), strict=True):
            allowed = torch.ones(len(ours), len(theirs), dtype=torch.bool)
            if distinct[0] is not None and distinct[1] is not None:
                allowed = ~shares_group(distinct[0][ours], distinct[1][theirs])
            hits = shares_group(relevant[0][ours], relevant[1][theirs]) & allowed
            counts[:, rows] += torch.stack([hits.double() @ size, allowed.double() @ size])
    counts = counts[:, our_kind].long()
    row_of = {name: row for row, name in enumerate(gallery.ids)}
    itself = torch.tensor([row_of.get(name, -1) for name in queries.ids])
    there = (itself >= 0).nonzero().flatten()  # its own image counts for none
    alone = torch.ones(len(there), dtype=torch.bool)
    if distinct[0] is not None and distinct[1] is not None:
        alone = ~pairs_share_group(distinct[0][there], distinct[1][itself[there]])
    hits = pairs_share_group(relevant[0][there], relevant[1][itself[there]]) & alone
    counts[:, there] -= torch.stack([hits, alone]).long()
    return counts[0].numpy(), counts[1].numpy()


def _kinds(groups: list[Groups]) -> tuple[Int[Tensor, " m"], Int[Tensor, " n"]]:
    """A first item of each kind, and every item's kind: items of one kind have the same groups."""
    parts = [np.ascontiguousarray(g.reshape(len(g), -1).numpy()).view(np.uint8) for g in groups]
    table = np.ascontiguousarray(np.concatenate(parts, axis=1))
    keys = table.view(np.dtype((np.void, table.shape[1])))[:, 0]
    _, first, kind = np.unique(keys, return_index=True, return_inverse=True)
    return torch.from_numpy(first), torch.from_numpy(kind)
