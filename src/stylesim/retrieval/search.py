"""Exact nearest neighbours by inner product, streamed: no table of queries by gallery is ever held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stylesim.errors import StylesimError

MARGIN = 32
"""Candidates beyond k that are scored again in float64."""

Groups = Int[Tensor, " n"] | Bool[Tensor, "n t"]
"""Group of each item: one code (negative: in none), or a multi-hot row over t groups."""


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
    block: int = 16384,
) -> Neighbours:
    """The k gallery rows with the largest inner product with each query.

    A query never finds a gallery item of its own id (where ids are given), nor one that shares a group with
    it (where groups are given). Ties go to the lower gallery row, and the answer does not depend on `block`:
    float32 proposes k + MARGIN candidates, float64 decides, and a query whose margin is too thin for
    float32's rounding is answered by a full float64 pass. `block`: gallery rows per step; a sixteenth as many
    queries go together.

    Returned tensors lie on the CPU. Raises StylesimError for shapes that disagree, k < 1, and NaN or
    infinity.
    """
    q, g = (torch.as_tensor(np.asarray(x) if not isinstance(x, Tensor) else x) for x in (queries, gallery))
    _check(q, g, k)
    excluded = [_paired(query_groups, gallery_groups)] if query_groups is not None else []
    if query_ids is not None and gallery_ids is not None:
        codes = {name: code for code, name in enumerate(dict.fromkeys(gallery_ids))}
        pair = [torch.tensor([codes.get(name, -1) for name in ids]) for ids in (query_ids, gallery_ids)]
        excluded.append((pair[0], pair[1]))
    indices = torch.full((len(q), k), -1)
    similarities = torch.full((len(q), k), -torch.inf)
    with _full_float32():
        for start in range(0, len(q), max(1, block // 16)):
            rows = slice(start, start + max(1, block // 16))
            masks = [(ours[rows].to(device), theirs) for ours, theirs in excluded]
            found, scores = _search_block(q[rows].to(device).float(), g, k, masks, block)
            indices[rows, : found.shape[1]] = found.cpu()
            similarities[rows, : found.shape[1]] = scores.float().cpu()
    return Neighbours(indices.masked_fill_(similarities.isinf(), -1), similarities)


def shares_group(ours: Groups, theirs: Groups) -> Bool[Tensor, "q g"]:
    """Where a query and a gallery item have a group in common."""
    if ours.ndim == 1:
        return (ours[:, None] == theirs[None]) & (ours >= 0)[:, None]
    return (ours.float() @ theirs.float().T) > 0


def _search_block(
    q: Float[Tensor, "b d"],
    g: Float[Tensor, "g d"],
    k: int,
    excluded: list[tuple[Tensor, Tensor]],
    block: int,
) -> tuple[Int[Tensor, "b r"], Float[Tensor, "b r"]]:
    """Neighbours of one block of queries: proposed in float32, decided in float64."""
    wanted = min(k + MARGIN, len(g))
    proposed, rows, norm = _propose(q, g, wanted, excluded, block)
    scores, found = _decide(q, g, proposed, rows, k)
    if wanted < len(g):
        # What was left out lies below the last candidate, but for float32's rounding of a sum of d terms.
        rounding = 2 * q.shape[1] * torch.finfo(torch.float32).eps * q.norm(dim=1) * norm
        unsure = (scores[:, -1] <= proposed[:, -1] + rounding) & proposed[:, -1].isfinite()
        if unsure.any():
            theirs = [(ours[unsure], groups) for ours, groups in excluded]
            proposed, rows, _ = _propose(q[unsure].double(), g, wanted, theirs, block)
            scores[unsure], found[unsure] = _decide(q[unsure], g, proposed, rows, k)
    return found, scores


def _propose(
    q: Float[Tensor, "b d"],
    g: Float[Tensor, "g d"],
    n: int,
    excluded: list[tuple[Tensor, Tensor]],
    block: int,
) -> tuple[Float[Tensor, "b n"], Int[Tensor, "b n"], Float[Tensor, ""]]:
    """The n best products and their rows, in the precision of q, and the largest norm in the gallery.

    In float32 ties fall anyhow; in float64 (rounded) to the lower row.
    """
    best = q.new_empty((len(q), 0))
    rows = torch.empty((len(q), 0), dtype=torch.int64, device=q.device)
    norm = q.new_zeros(())
    for start in range(0, len(g), block):
        part = g[start : start + block].to(q.device, q.dtype)
        norm = torch.maximum(norm, part.norm(dim=1).max())
        scores = q @ part.T if q.dtype == torch.float32 else _rounded(q @ part.T)
        for ours, theirs in excluded:
            shared = shares_group(ours, theirs[start : start + block].to(q.device))
            scores = scores.masked_fill_(shared, -torch.inf)
        values, here = scores.topk(min(n, len(part)), dim=1)
        if q.dtype == torch.float64:
            values, here = _lowest_rows(scores, values, here)
        best, order = torch.cat([best, values], 1).sort(dim=1, descending=True, stable=True)
        rows = torch.cat([rows, here + start], 1).gather(1, order)[:, :n]
        best = best[:, :n]
    return best, rows, norm


def _decide(
    q: Float[Tensor, "b d"],
    g: Float[Tensor, "g d"],
    proposed: Float[Tensor, "b n"],
    rows: Int[Tensor, "b n"],
    k: int,
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The first k of the candidates by (float64 similarity descending, gallery row ascending)."""
    # Their descriptors in float64 take b * n * d * 8 bytes: a few queries at a time.
    parts = zip(q.double().split(64), rows.split(64), strict=True)
    scores = torch.cat([(a[:, None] * g[b.to(g.device)].to(q.device).double()).sum(-1) for a, b in parts])
    scores = _rounded(scores).masked_fill_(proposed.isinf(), -torch.inf)
    by_row = rows.argsort(dim=1)
    scores, rows = scores.gather(1, by_row), rows.gather(1, by_row)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return scores.gather(1, order), rows.gather(1, order)


def _lowest_rows(
    scores: Float[Tensor, "b p"], values: Float[Tensor, "b n"], rows: Int[Tensor, "b n"]
) -> tuple[Float[Tensor, "b n"], Int[Tensor, "b n"]]:
    """topk's answer in the order of the rows, with the lowest of the rows that tie for the last places."""
    n = values.shape[1]
    if (tied := (scores >= values[:, -1:]).sum(1) > n).any():
        rows[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :n]
    rows = rows.sort(dim=1).values
    return scores.gather(1, rows), rows


def _rounded(scores: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """To 2^-40, so that the order of a float64 summation cannot break a tie."""
    return (scores * 2.0**40).round_() / 2.0**40


@contextmanager
def _full_float32() -> Iterator[None]:
    """Without TF32 and bfloat16 shortcuts, whatever the training run has switched on."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _paired(query_groups: Groups, gallery_groups: Groups | None) -> tuple[Tensor, Tensor]:
    if gallery_groups is None:
        raise StylesimError("Queries have groups but the gallery has none: give query_groups and gallery_groups.")
    ours, theirs = torch.as_tensor(query_groups), torch.as_tensor(gallery_groups)
    if ours.ndim != theirs.ndim or ours.shape[1:] != theirs.shape[1:]:
        raise StylesimError(
            f"Groups of queries {list(ours.shape)} and gallery {list(theirs.shape)} are not of one kind: "
            "either one code per item in both, or multi-hot rows over the same groups in both."
        )
    return ours, theirs


def _check(q: Tensor, g: Tensor, k: int) -> None:
    if q.ndim != 2 or g.ndim != 2 or q.shape[1] != g.shape[1]:
        raise StylesimError(
            f"Queries {list(q.shape)} and gallery {list(g.shape)} are [n d] tables with the same d: "
            "were they described by the same encoder?"
        )
    if k < 1:
        raise StylesimError(f"k is at least 1, not {k}.")
    for name, x in (("queries", q), ("gallery", g)):
        bad = (~x.isfinite().all(dim=1)).nonzero().flatten()
        if len(bad):
            raise StylesimError(f"{len(bad)} of the {name} hold NaN or infinity, the first in row {int(bad[0])}.")
