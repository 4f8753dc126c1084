"""Every pair of descriptors above a similarity: exactly, without a table of all by all, or by an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

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

FEW = 1 << 28
"""Comparisons that are done before a shorter table would have been made."""
WIDTHS = (64, 96, 128, 160, 192, 256, 320, 384)
"""Columns that a shorter table may have; matrix units like multiples of 32."""
SAMPLE = 4096
LONGEST = 4096
"""Numbers of a descriptor beyond which no axes are fitted: a Gram matrix has 100,000 and more."""
DECISION = 400.0
"""What it costs to decide on one pair, in inner products of a block: microseconds against nanoseconds."""


class Pairs(NamedTuple):
    """Some of the pairs, ordered by neither side."""

    left: Int[np.ndarray, " p"]
    """Rows of `ours`, int64."""
    right: Int[np.ndarray, " p"]
    """Rows of `theirs`; within one set, the greater row of the two."""
    similarities: Float[np.ndarray, " p"]
    """Inner products, float64."""
    done: int
    """Rows of `ours`, from the first, all of whose pairs have been given when these are taken."""


def pairs_above(
    ours: Float[Tensor | np.ndarray, "n d"],
    theirs: Float[Tensor | np.ndarray, "m d"] | None = None,
    *,
    threshold: float,
    start: int = 0,
    device: str | torch.device = "cpu",
    block: int = 2048,
) -> Iterator[Pairs]:
    """The pairs whose inner product exceeds `threshold`, block by block; without `theirs`, those within one set, once.

    Which pairs there are depends neither on `block` nor on the hardware: `device` proposes them in the shortest floats
    it is fast with, by as much below the threshold as these can be off, and float64 decides. Large sets are proposed
    from a table of fewer columns whose products are bounds of the true ones (`_bounds`), so that what is far apart
    costs less; a block in which that tells little is proposed from the whole descriptors. Blocks without a pair are
    passed over, except the last one of their rows, which tells `done`.

    `start`: rows of `ours` that are done already. In memory are the shorter tables (4 bytes x a third or so of the
    numbers), a block of products (4 `block`^2 bytes) and the pairs of one block; arrays on disk are read as needed.

    Raises StylesimError for shapes that disagree, and for NaN or infinity.
    """
    tables = [as_cpu_tensor(x) for x in (ours, theirs) if x is not None]
    check_shapes(tables[0], tables[-1], 1)
    for name, table in zip(("descriptors", "other descriptors"), tables, strict=False):
        max_norms(name, table)
    if not (len(tables[0]) and len(tables[-1])):
        return
    device = "cpu" if torch.device(device).type == "mps" else device  # search does the same
    bounds = _bounds(tables, threshold)
    proposers = [(x, matmul_modes(x[0], x[-1], torch.device(device))[0]) for x in (bounds, tables)]
    within = theirs is None
    scratch = torch.empty(block * block, device=device)  # or pages would be mapped anew for each block
    for top in range(start, len(tables[0]), block):
        for edge in range(top if within else 0, len(tables[-1]), block):
            left = right = np.empty(0, dtype=np.int64)
            for x, mode in proposers if bounds is not tables else proposers[1:]:
                rows, columns = (t[at : at + block].to(device, mode.dtype) for t, at in ((x[0], top), (x[-1], edge)))
                left, right = _propose(rows, columns, mode, threshold, scratch)
                if len(left) * DECISION < len(rows) * len(columns):  # few enough to decide on
                    break
            left, right = left + top, right + edge
            if within:
                left, right = left[left < right], right[left < right]
            found = confirm_pairs(tables[0].numpy(), tables[-1].numpy(), left, right, threshold)
            ended = edge + block >= len(tables[-1])
            if ended or len(found[0]):
                yield Pairs(*found, done=min(top + block, len(tables[0])) if ended else top)


def _propose(
    rows: Float[Tensor, "b w"],
    columns: Float[Tensor, "c w"],
    mode: MatmulMode,
    threshold: float,
    scratch: Float[Tensor, " s"],
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Row and column of the products that may exceed the threshold."""
    products = scratch[: len(rows) * len(columns)].view(len(rows), -1)
    with matmul_precision(mode.matmul):
        torch.mm(rows, columns.T, out=products)
    least = threshold - mode.error_bound
    some = (products.amax(dim=1) > least).nonzero().flatten()  # most rows have none, and this is one quick pass
    row, column = (products[some] > least).nonzero(as_tuple=True)
    return some[row].cpu().numpy(), column.cpu().numpy()


def confirm_pairs(
    ours: Float[np.ndarray, "n d"],
    theirs: Float[np.ndarray, "m d"],
    left: Int[np.ndarray, " p"],
    right: Int[np.ndarray, " p"],
    threshold: float,
) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " q"], Float[np.ndarray, " q"]]:
    """Of proposed pairs of rows those whose float64 product exceeds the threshold, and the products."""
    similarities = np.empty(len(left))
    step = max(1, MAX_BLOCK_NUMBERS // (4 * ours.shape[1]))  # a bounded number at a time
    for first in range(0, len(left), step):
        part = slice(first, first + step)
        x, y = (table[rows[part]].astype(np.float64) for table, rows in ((ours, left), (theirs, right)))
        similarities[part] = round_scores(np.vecdot(x, y))
    there = similarities > threshold
    return left[there], right[there], similarities[there]


def _bounds(tables: list[Tensor], threshold: float) -> list[Tensor]:
    """Tables of fewer columns whose inner products are those of the descriptors or greater; or the tables themselves.

    With P the projection on the leading axes of an (uncentred) PCA, <x, y> <= <Px, Py> + |x - Px| |y - Py| by Cauchy
    and Schwarz: an inner product again, of the coordinates and one number more. The width is the one that is cheapest
    on a sample: a narrow table has short products, but leaves more pairs to decide.
    """
    d = tables[0].shape[1]
    few = len(tables[0]) * len(tables[-1]) < FEW or min(map(len, tables)) < 16
    if few or not min(WIDTHS) < d <= LONGEST:
        return tables
    fitted, others = zip(*(_halves(table) for table in tables), strict=True)
    axes = torch.linalg.eigh(torch.stack([x.T @ x for x in fitted]).sum(dim=0)).eigenvectors.flip(1)
    # Rows that the axes have not seen, which leave out more than those they are fitted to; of one set no row twice.
    left, right = others[0][::2].float(), others[-1][1::2].float()

    def cost(width: int) -> float:
        a, b = (left, right) if width == d else (_bound(x, axes[:, : width - 1]) for x in (left, right))
        return width + DECISION * d * float((a @ b.T > threshold).double().mean())

    width = min((d, *(width for width in WIDTHS if width < d)), key=cost)
    if width == d:
        return tables
    with matmul_precision("highest"):
        return [torch.cat([_bound(part, axes[:, : width - 1]) for part in table.split(8192)]) for table in tables]


def _bound(x: Float[Tensor, "n d"], axes: Float[Tensor, "d w-1"]) -> Float[Tensor, "n w"]:
    """Coordinates on the axes, and the length of what they leave out; float32."""
    leading = x.float() @ axes.float()
    squares = x.double().square().sum(dim=1)
    left_out = (squares - leading.double().square().sum(dim=1)).clamp(min=0)
    # The coordinates are round_scores; sqrt(a + e) sqrt(b + e) >= sqrt(a b) + e makes up for it on either side.
    slack = 4 * (x.shape[1] + 2) * torch.finfo(torch.float32).eps
    return torch.cat([leading, (left_out + slack * squares).sqrt().float()[:, None]], dim=1)


def _halves(table: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
    """Two random samples of the rows that share none."""
    sample = table[torch.from_numpy(np.random.default_rng(0).permutation(len(table))[: 2 * SAMPLE])].double()
    return sample[: len(sample) // 2], sample[len(sample) // 2 :]


class IndexedPairs(NamedTuple):
    """Pairs that an index has found, and how far that can be trusted."""

    pairs: Pairs
    recall: float
    """Share of the true pairs of `sampled` rows that are among them, in [0, 1]; 1 where these have none."""
    sampled: int


def indexed_pairs(
    descriptors: Float[np.ndarray, "n d"],
    *,
    threshold: float,
    kind: Literal["ivf", "hnsw", "pq"],
    k: int = 64,
    sample: int = 1000,
) -> IndexedPairs:
    """Pairs within one set among the `k` nearest that an index finds for each row: for sets of many millions.

    What is found is above the threshold (float64 decides); what is missed the recall tells, measured against
    `pairs_above` for a random `sample` of rows. A row with more than k - 1 pairs has some of them missed: a crowd of
    look-alikes is connected all the same. Raises StylesimError as `build_ann_index` does.
    """
    from stylesim.retrieval.ann_index import approximate_search, build_ann_index

    n, k = len(descriptors), min(k, len(descriptors))
    near = approximate_search(build_ann_index(descriptors, kind), descriptors, k, sample=1).neighbours.indices.numpy()
    codes = _codes(np.repeat(np.arange(n), k), near.reshape(-1), n)
    pairs = Pairs(*confirm_pairs(descriptors, descriptors, codes // n, codes % n, threshold), done=n)

    chosen = np.sort(np.random.default_rng(0).permutation(n)[:sample])
    blocks = [
        _codes(chosen[p.left], p.right, n) for p in pairs_above(descriptors[chosen], descriptors, threshold=threshold)
    ]
    true = np.unique(np.concatenate(blocks))
    found = np.isin(true, pairs.left * n + pairs.right)
    return IndexedPairs(pairs, float(found.mean()) if len(true) else 1.0, len(chosen))


def _codes(rows: Int[np.ndarray, " p"], others: Int[np.ndarray, " p"], n: int) -> Int[np.ndarray, " c"]:
    """One number for each pair of different rows, whichever of the two comes first, ascending; -1 is no row."""
    there = (others >= 0) & (others != rows)
    rows, others = rows[there], others[there]
    return np.unique(np.minimum(rows, others) * n + np.maximum(rows, others))
