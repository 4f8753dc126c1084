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
    best = torch.empty((len(q), 0), device=q.device)
    rows = torch.empty((len(q), 0), dtype=torch.int64, device=q.device)
    norm = torch.zeros((), device=q.device)
    for start, part in _parts(g, block, q.device):
        scores = _masked(q @ part.T, excluded, start)
        norm = torch.maximum(norm, part.norm(dim=1).max())
        top = scores.topk(min(wanted, len(part)), dim=1)
        best, order = torch.cat([best, top.values], 1).sort(dim=1, descending=True, stable=True)
        rows = torch.cat([rows, top.indices + start], 1).gather(1, order)[:, :wanted]
        best = best[:, :wanted]

    # Float64 rows are several times as large: a few queries at a time.
    exact = torch.cat(
        [_rescore(a, g[b.cpu()].to(q.device)) for a, b in zip(q.split(64), rows.split(64), strict=True)]
    )
    scores, rows = _ordered(exact.masked_fill_(best.isinf(), -torch.inf), rows, k)
    # What was left out lies below the last candidate, but for float32's rounding of a sum of d terms.
    rounding = 2 * q.shape[1] * torch.finfo(torch.float32).eps * q.norm(dim=1) * norm
    if wanted < len(g):
        unsure = (scores[:, -1] <= best[:, -1] + rounding) & best[:, -1].isfinite()
        for i in unsure.nonzero().flatten().tolist():
            mine = [(ours[i : i + 1], theirs) for ours, theirs in excluded]
            full = [
                _masked(_rescore(q[i : i + 1], p[None]), mine, start)
                for start, p in _parts(g, block, q.device)
            ]
            row, index = _ordered(torch.cat(full, 1), torch.arange(len(g), device=q.device)[None], k)
            scores[i], rows[i] = row[0], index[0]
    return rows, scores


def _parts(g: Tensor, block: int, device: torch.device) -> Iterator[tuple[int, Float[Tensor, "p d"]]]:
    for start in range(0, len(g), block):
        yield start, g[start : start + block].to(device).float()


def _masked(
    scores: Float[Tensor, "b p"], excluded: list[tuple[Tensor, Tensor]], start: int
) -> Float[Tensor, "b p"]:
    for ours, theirs in excluded:
        part = theirs[start : start + scores.shape[1]].to(scores.device)
        scores = scores.masked_fill_(shares_group(ours, part), -torch.inf)
    return scores


def _rescore(q: Float[Tensor, "b d"], g: Float[Tensor, "#b r d"]) -> Float[Tensor, "b r"]:
    """Inner products in float64, rounded to 2^-40 so that the order of summation cannot break a tie."""
    return ((q[:, None].double() * g.double()).sum(-1) * 2.0**40).round() / 2.0**40


def _ordered(
    scores: Tensor, rows: Int[Tensor, "b r"], k: int
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The first k by (similarity descending, gallery row ascending)."""
    by_row = rows.argsort(dim=1)
    scores, rows = scores.gather(1, by_row), rows.gather(1, by_row)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return scores.gather(1, order), rows.gather(1, order)


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
        raise StylesimError(
            "Queries have groups but the gallery has none: give query_groups and gallery_groups."
        )
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
            raise StylesimError(
                f"{len(bad)} of the {name} hold NaN or infinity, the first in row {int(bad[0])}."
            )
