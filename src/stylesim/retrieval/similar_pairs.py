"""All pairs of descriptors above a similarity: exactly, without the full matrix of products, or with an index."""

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
"""Up to this many comparisons, computing all products is faster than computing bounds first."""
WIDTHS = (64, 96, 128, 160, 192, 256, 320, 384)
"""Widths that the table of bounds may have; matrix units are fastest at multiples of 32."""
SAMPLE = 4096
"""Rows in each of the two samples from which the table of bounds is chosen."""
LONGEST = 4096
"""Descriptors with more dimensions than this get no bounds: a Gram matrix has 100,000 dimensions and more."""
DECISION = 400.0
"""Cost of computing one pair in float64, relative to one product within a block (microseconds to nanoseconds)."""


class Pairs(NamedTuple):
    """Some of the pairs, in no particular order."""

    left: Int[np.ndarray, " p"]
    """Rows of the first set, int64."""
    right: Int[np.ndarray, " p"]
    """Rows of the second set, int64; within one set, the greater row of the two."""
    similarities: Float[np.ndarray, " p"]
    """Inner products, float64."""
    done: int
    """All pairs of the first `done` rows of the first set have been yielded, these included."""


def pairs_above(
    left: Float[Tensor | np.ndarray, "n d"],
    right: Float[Tensor | np.ndarray, "m d"] | None = None,
    *,
    threshold: float,
    start: int = 0,
    device: str | torch.device = "cpu",
    block: int = 2048,
) -> Iterator[Pairs]:
    """Yield the pairs whose inner product exceeds `threshold`, block by block.

    The set of pairs depends neither on `block` nor on the hardware. The device proposes pairs in its fastest precision
    down to one error bound below the threshold, and their float64 products decide. For large sets, pairs are first
    proposed from a table of fewer columns whose products are upper bounds of the true ones (`_bounds`), so that
    dissimilar images cost less. If the bounds exclude too few pairs of a block, the whole descriptors are used for it.
    Blocks without a pair are not yielded, except the last block of each group of rows, which reports `done`.

    In memory are the tables of bounds (about a third of the size of the descriptors in float32), a block of products
    (4 `block`^2 bytes) and the pairs of one block. Memory-mapped arrays are read as needed.

    Args:
        left: The first set.
        right: The second set. None yields the pairs within the first set, each once.
        threshold: Only pairs strictly above it are yielded.
        start: The first row of the first set to compare: `done` of an interrupted search, to continue it.
        device: Where pairs are proposed. MPS has no float64, so the CPU is used instead.
        block: Rows of either set per step.

    Yields:
        The pairs of one block.

    Raises:
        DataError: If the shapes do not match, or a descriptor contains NaN or infinity.
    """
    tables = [as_cpu_tensor(x) for x in (left, right) if x is not None]
    check_shapes(tables[0], tables[-1], 1)
    for name, table in zip(("descriptors", "other descriptors"), tables, strict=False):
        max_norms(name, table)
    if not (len(tables[0]) and len(tables[-1])):
        return
    device = "cpu" if torch.device(device).type == "mps" else device
    bounds = _bounds(tables, threshold)
    proposers = [(x, matmul_modes(x[0], x[-1], torch.device(device))[0]) for x in (bounds, tables)]
    within = right is None
    scratch = torch.empty(block * block, device=device)  # reused, because mapping new memory for each block is slow
    for top in range(start, len(tables[0]), block):
        for left_edge in range(top if within else 0, len(tables[-1]), block):
            i = j = np.empty(0, dtype=np.int64)
            for x, mode in proposers if bounds is not tables else proposers[1:]:
                rows, columns = (
                    table[at : at + block].to(device, mode.dtype) for table, at in ((x[0], top), (x[-1], left_edge))
                )
                i, j = _propose(rows, columns, mode, threshold, scratch)
                if len(i) * DECISION < len(rows) * len(columns):  # few enough to compute each in float64
                    break
            i, j = i + top, j + left_edge
            if within:
                i, j = i[i < j], j[i < j]
            pairs = confirm_pairs(tables[0].numpy(), tables[-1].numpy(), i, j, threshold)
            is_last = left_edge + block >= len(tables[-1])
            if is_last or len(pairs[0]):
                yield Pairs(*pairs, done=min(top + block, len(tables[0])) if is_last else top)


def _propose(
    rows: Float[Tensor, "b w"],
    columns: Float[Tensor, "c w"],
    mode: MatmulMode,
    threshold: float,
    scratch: Float[Tensor, " s"],
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Return row and column of the products that may exceed the threshold."""
    products = scratch[: len(rows) * len(columns)].view(len(rows), -1)
    with matmul_precision(mode.matmul):
        torch.mm(rows, columns.T, out=products)
    least = threshold - mode.error_bound
    # One fast pass finds the rows that have such a product; most rows have none.
    candidates = (products.amax(dim=1) > least).nonzero().flatten()
    row, column = (products[candidates] > least).nonzero(as_tuple=True)
    return candidates[row].cpu().numpy(), column.cpu().numpy()


def confirm_pairs(
    left: Float[np.ndarray, "n d"],
    right: Float[np.ndarray, "m d"],
    left_rows: Int[np.ndarray, " p"],
    right_rows: Int[np.ndarray, " p"],
    threshold: float,
) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " q"], Float[np.ndarray, " q"]]:
    """Select the proposed pairs whose float64 product exceeds the threshold.

    Args:
        left: The first set.
        right: The second set; may be the first set again.
        left_rows: Rows of the first set, one per proposed pair.
        right_rows: Rows of the second set.
        threshold: Only pairs strictly above it are returned.

    Returns:
        The rows of the selected pairs in the first and in the second set, and their inner products in float64.
    """
    similarities = np.empty(len(left_rows))
    step = max(1, MAX_BLOCK_NUMBERS // (4 * left.shape[1]))
    for first in range(0, len(left_rows), step):
        part = slice(first, first + step)
        x, y = (table[rows[part]].astype(np.float64) for table, rows in ((left, left_rows), (right, right_rows)))
        similarities[part] = round_scores(np.vecdot(x, y))
    above = similarities > threshold
    return left_rows[above], right_rows[above], similarities[above]


def _bounds(tables: list[Tensor], threshold: float) -> list[Tensor]:
    """Return tables of fewer columns whose inner products bound those of the descriptors from above.

    With P the projection on the leading axes of an uncentred PCA, <x, y> <= <Px, Py> + |x - Px| |y - Py| by
    Cauchy-Schwarz. That is again an inner product, of the coordinates and one more number. The width is the cheapest
    one on a sample: a narrow table makes products cheap but leaves more pairs to compute in float64. If none is cheaper
    than the descriptors, `tables` itself is returned.
    """
    d = tables[0].shape[1]
    few = len(tables[0]) * len(tables[-1]) < FEW or min(map(len, tables)) < 16
    if few or not min(WIDTHS) < d <= LONGEST:
        return tables
    fitted, held_out = zip(*(_halves(table) for table in tables), strict=True)
    axes = torch.linalg.eigh(torch.stack([x.T @ x for x in fitted]).sum(dim=0)).eigenvectors.flip(1)
    # The cost is measured on rows that the axes were not fitted on, because their residuals are larger. Within one set,
    # the two halves have no row in common.
    left, right = held_out[0][::2].float(), held_out[-1][1::2].float()

    def cost(width: int) -> float:
        a, b = (left, right) if width == d else (_bound(x, axes[:, : width - 1]) for x in (left, right))
        return width + DECISION * d * float((a @ b.T > threshold).double().mean())

    width = min((d, *(width for width in WIDTHS if width < d)), key=cost)
    if width == d:
        return tables
    with matmul_precision("highest"):
        return [torch.cat([_bound(part, axes[:, : width - 1]) for part in table.split(8192)]) for table in tables]


def _bound(x: Float[Tensor, "n d"], axes: Float[Tensor, "d w-1"]) -> Float[Tensor, "n w"]:
    """Return the coordinates on the axes and the length of the residual, in float32."""
    leading = x.float() @ axes.float()
    squares = x.double().square().sum(dim=1)
    residual = (squares - leading.double().square().sum(dim=1)).clamp(min=0)
    # Adding slack to both residuals compensates for rounded coordinates: sqrt(a + e) sqrt(b + e) >= sqrt(a b) + e.
    slack = 4 * (x.shape[1] + 2) * torch.finfo(torch.float32).eps
    return torch.cat([leading, (residual + slack * squares).sqrt().float()[:, None]], dim=1)


def _halves(table: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
    """Return two random samples of the rows that have no row in common."""
    sample = table[torch.from_numpy(np.random.default_rng(0).permutation(len(table))[: 2 * SAMPLE])].double()
    return sample[: len(sample) // 2], sample[len(sample) // 2 :]


class IndexedPairs(NamedTuple):
    """The pairs that an index found, and its measured recall."""

    pairs: Pairs
    recall: float
    """Share of the true pairs of `sampled` rows that were found, in [0, 1]; 1 if these rows have none."""
    sampled: int


def indexed_pairs(
    descriptors: Float[np.ndarray, "n d"],
    *,
    threshold: float,
    kind: Literal["ivf", "hnsw", "pq"],
    k: int = 64,
    sample: int = 1000,
) -> IndexedPairs:
    """Find pairs within a set of many millions of images, with an approximate index.

    The index proposes the k nearest neighbours of each row, and only pairs whose float64 product exceeds the threshold
    are returned. A row with more than k - 1 pairs loses some of them, but a large cluster of near-duplicates stays
    connected through the others.

    Args:
        descriptors: The set.
        threshold: Only pairs strictly above it are returned.
        kind: As for `build_ann_index`.
        k: Neighbours to look up for each row.
        sample: The number of random rows that are also searched exactly, to measure the recall.

    Returns:
        The pairs, and the measured recall.

    Raises:
        ConfigError: As for `build_ann_index`.
    """
    from stylesim.retrieval.ann_index import approximate_search, build_ann_index

    n, k = len(descriptors), min(k, len(descriptors))
    nearest = approximate_search(
        build_ann_index(descriptors, kind), descriptors, k, sample=1
    ).neighbours.indices.numpy()
    codes = _pair_codes(np.repeat(np.arange(n), k), nearest.reshape(-1), n)
    pairs = Pairs(*confirm_pairs(descriptors, descriptors, codes // n, codes % n, threshold), done=n)

    chosen = np.sort(np.random.default_rng(0).permutation(n)[:sample])
    blocks = [
        _pair_codes(chosen[p.left], p.right, n)
        for p in pairs_above(descriptors[chosen], descriptors, threshold=threshold)
    ]
    true = np.unique(np.concatenate(blocks))
    hits = np.isin(true, pairs.left * n + pairs.right)
    return IndexedPairs(pairs, float(hits.mean()) if len(true) else 1.0, len(chosen))


def _pair_codes(rows: Int[np.ndarray, " p"], others: Int[np.ndarray, " p"], n: int) -> Int[np.ndarray, " c"]:
    """Return a unique number for each unordered pair of different rows, in ascending order; -1 means no row."""
    valid = (others >= 0) & (others != rows)
    rows, others = rows[valid], others[valid]
    return np.unique(np.minimum(rows, others) * n + np.maximum(rows, others))
