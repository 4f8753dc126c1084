from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylesim.core.errors import StylesimError
from stylesim.retrieval import similar_pairs
from stylesim.retrieval.similar_pairs import indexed_pairs, pairs_above


def clusters(rng: np.random.Generator, n: int, d: int, spread: float) -> np.ndarray:
    """Return unit vectors around a few centres, some of them repeated."""
    centres = rng.standard_normal((max(1, n // 6), d))
    x = centres[rng.integers(len(centres), size=n)] + spread * rng.standard_normal((n, d))
    x[rng.integers(n, size=n // 4)] = x[0]
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def by_table(left: np.ndarray, right: np.ndarray, threshold: float) -> dict[tuple[int, int], float]:
    products = (left.astype(np.float64)[:, None] * right.astype(np.float64)[None]).sum(-1)
    return {(i, j): products[i, j] for i, j in np.argwhere(products > threshold).tolist()}


def found(*tables: np.ndarray, **options: object) -> dict[tuple[int, int], float]:
    blocks = list(pairs_above(*tables, **options))
    assert not blocks or blocks[-1].done == len(tables[0])
    listed = [(i, j, s) for b in blocks for i, j, s in zip(b.left, b.right, b.similarities, strict=True)]
    as_dict = {(int(i), int(j)): s for i, j, s in listed}
    assert len(as_dict) == len(listed), "a pair was yielded twice"
    return as_dict


@settings(max_examples=40)
@given(
    st.integers(0, 999),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0.3, 0.8, 2.0]),
    st.sampled_from([-0.2, 0.5, 0.8, 0.95]),
    st.sampled_from([1, 7, 64]),
)
def test_pairs_match_the_full_table_of_products(seed, n, m, spread, threshold, block):
    rng = np.random.default_rng(seed)
    left, right = clusters(rng, n, 6, spread), clusters(rng, m, 6, spread)
    assert found(left, right, threshold=threshold, block=block) == pytest.approx(by_table(left, right, threshold))
    within = {(i, j): s for (i, j), s in by_table(left, left, threshold).items() if i < j}
    assert found(left, threshold=threshold, block=block) == pytest.approx(within)


@settings(max_examples=25)
@given(st.integers(0, 999), st.sampled_from([0.2, 0.7, 3.0]), st.sampled_from([0.5, 0.8, 0.9]), st.booleans())
def test_bounds_propose_every_pair(seed, spread, threshold, decaying):
    """Also for vectors of other lengths, and where few axes hold nearly all of the variance."""
    rng = np.random.default_rng(seed)
    x = clusters(rng, 90, 100, spread) * rng.uniform(0.5, 1.2, (90, 1)).astype(np.float32)
    x = x * (0.9 ** np.arange(100) if decaying else np.ones(100)).astype(np.float32)
    expected = by_table(x, x, threshold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similar_pairs, "FEW", 0)
        patch.setattr(similar_pairs, "WIDTHS", (2, 10, 50))
        patch.setattr(similar_pairs, "DECISION", 0.0)  # selects the narrowest table, which proposes the most pairs
        assert similar_pairs._bounds([torch.from_numpy(x)], threshold)[0].shape == (90, 2)
        assert set(found(x, threshold=threshold, block=32)) == {(i, j) for i, j in expected if i < j}
        assert set(found(x[:50], x[50:], threshold=threshold)) == {(i, j - 50) for i, j in expected if i < 50 <= j}


@settings(max_examples=25)
@given(st.integers(0, 999), st.sampled_from([1, 3, 9, 33]))
def test_bounds_are_never_below_the_products(seed, width):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(clusters(rng, 60, 40, 0.1))
    axes = torch.linalg.qr(torch.from_numpy(rng.standard_normal((40, 40)))).Q[:, : width - 1]
    bounds = similar_pairs._bound(x, axes).double()
    assert ((bounds @ bounds.T) >= (x.double() @ x.double().T)).all()


def test_pairs_at_the_threshold_are_decided_in_float64():
    """Of two products that are equal in float32, one is above 0.8 and the other below."""
    x = np.zeros((3, 8), dtype=np.float64)
    x[0, 0], x[1, :2], x[2, :2] = 1, (0.8 + 1e-9, 0.6), (0.8 - 1e-9, 0.6)
    assert np.float32(0.8 + 1e-9) == np.float32(0.8 - 1e-9)
    assert [(i, j) for i, j in found(x[:1], x[1:], threshold=0.8)] == [(0, 0)]


def test_a_search_continues_from_start(tmp_path: Path):
    rng = np.random.default_rng(3)
    np.save(tmp_path / "x.npy", clusters(rng, 100, 5, 0.5))
    x = np.load(tmp_path / "x.npy", mmap_mode="c")
    whole, seen = found(x, threshold=0.7, block=16), {}
    for block in pairs_above(x, threshold=0.7, block=16):
        if block.done > 40:
            break
        done = block.done
        seen |= {(int(i), int(j)): s for i, j, s in zip(block.left, block.right, block.similarities, strict=True)}
    first = {pair: s for pair, s in seen.items() if pair[0] < done}
    rest = found(x, threshold=0.7, block=16, start=done)
    assert not first.keys() & rest.keys()
    assert first | rest == whole


def test_empty_sets_have_no_pairs_and_nan_is_refused():
    x = clusters(np.random.default_rng(0), 9, 4, 1.0)
    assert found(x[:0], threshold=0.5) == found(x, x[:0], threshold=0.5) == found(x[:0], x, threshold=0.5) == {}
    x[4, 2] = np.nan
    with pytest.raises(StylesimError, match="1 of the descriptors contain NaN or infinity, the first in row 4"):
        list(pairs_above(x, threshold=0.5))
    with pytest.raises(StylesimError, match="other descriptors"):
        list(pairs_above(x[:4], x, threshold=0.5))


def test_pairs_from_an_index_come_with_their_recall():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(5)
    x = clusters(rng, 400, 16, 0.2)
    expected = found(x, threshold=0.9)
    for k in (400, 4):
        indexed = indexed_pairs(x, threshold=0.9, kind="hnsw", k=k, sample=400)
        listed = set(zip(indexed.pairs.left.tolist(), indexed.pairs.right.tolist(), strict=True))
        assert listed <= set(expected)
        assert indexed.recall == pytest.approx(len(listed) / len(expected))
    assert len(listed) < len(expected), "a cluster has more than four members"
