from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import preload_in_forkserver

from stylesim.core.errors import StylesimError
from stylesim.retrieval.exact_search import search, search_distributed


def by_sorting(q: np.ndarray, g: np.ndarray, k: int, allowed: np.ndarray) -> list[list[int]]:
    """Compute all products in float64 and sort them."""
    products = np.round((q.astype(np.float64)[:, None] * g.astype(np.float64)[None]).sum(-1) * 2**40)
    return [
        sorted(np.flatnonzero(mask).tolist(), key=lambda j: (-row[j], j))[:k]
        for row, mask in zip(products, allowed, strict=True)
    ]


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    x = rng.standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@settings(max_examples=40)
@given(
    st.integers(0, 99),
    st.integers(1, 9),
    st.integers(1, 130),
    st.integers(1, 60),
    st.sampled_from([16, 48, 512]),
)
def test_neighbours_match_a_full_sort_for_any_block_size(seed, n_queries, n_gallery, k, block):
    rng = np.random.default_rng(seed)
    q, g = unit(rng, n_queries, 4), unit(rng, n_gallery, 4)
    g[rng.integers(n_gallery, size=n_gallery // 2)] = g[0]  # many exact ties
    found = search(q, g, k, block=block)

    expected = by_sorting(q, g, k, np.ones((n_queries, n_gallery), dtype=bool))
    assert [[j for j in row if j >= 0] for row in found.indices.tolist()] == expected
    assert found.indices.shape == found.similarities.shape == (n_queries, k)
    assert ((found.indices < 0) == found.similarities.isinf()).all()


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(0, 99), st.booleans(), st.booleans(), st.sampled_from([16, 4096]))
def test_items_with_the_same_id_or_group_are_never_found(seed, multi_hot, collapsed, block):
    rng = np.random.default_rng(seed)
    q, g = unit(rng, 7, 3), unit(rng, 90, 3)
    if collapsed:  # like those of an untrained encoder: closer together than float32 resolves
        q, g = (1 + x * np.float32(1e-6) for x in (q, g))
    ids = [f"q{i}" for i in range(4)] + ["g5", "g6", "g7"]
    if multi_hot:
        groups = [torch.from_numpy(rng.random((n, 5)) < 0.2) for n in (7, 90)]
        allowed = ~(groups[0].numpy().astype(int) @ groups[1].numpy().astype(int).T > 0)
    else:
        groups = [torch.from_numpy(rng.integers(-1, 4, n)) for n in (7, 90)]
        of_queries, of_gallery = groups[0].numpy()[:, None], groups[1].numpy()[None]
        allowed = (of_queries != of_gallery) | (of_queries < 0)  # -1 means no group
    allowed[[4, 5, 6], [5, 6, 7]] = False
    found = search(
        *(q, g, 20),
        query_ids=ids,
        gallery_ids=[f"g{i}" for i in range(90)],
        query_groups=groups[0],
        gallery_groups=groups[1],
        block=block,
    )
    assert [[j for j in row if j >= 0] for row in found.indices.tolist()] == by_sorting(q, g, 20, allowed)


def test_more_ties_than_the_margin_still_go_to_the_lowest_rows():
    gallery = np.ones((500, 8), dtype=np.float32)
    gallery[::2] = 0.5
    for block in (32, 128, 4096):
        found = search(np.ones((2, 8), dtype=np.float32), gallery, 5, block=block)
        assert found.indices.tolist() == [[1, 3, 5, 7, 9]] * 2


def test_differences_below_float32_rounding_decide_the_order():
    query = torch.full((1, 64), 1.0)
    gallery = torch.full((200, 64), 1.0)
    gallery[torch.arange(200), torch.arange(200) % 64] += torch.arange(200) * 2.0**-23
    assert search(query, gallery, 3).indices.tolist() == [[199, 198, 197]]


def test_fewer_candidates_than_k_are_padded():
    found = search(torch.eye(2), torch.eye(2), 3, query_ids=["a", "b"], gallery_ids=["a", "b"])
    assert found.indices.tolist() == [[1, -1, -1], [0, -1, -1]]
    assert found.similarities.tolist() == [[0.0, -torch.inf, -torch.inf]] * 2


@pytest.mark.parametrize("shortened", [True, False])
def test_reduced_precision_hardware_gives_the_same_neighbours(monkeypatch, shortened):
    """Near-duplicates are closer than bfloat16 resolves, so some queries must be proposed again in float32."""
    rng = np.random.default_rng(0)
    g = np.repeat(unit(rng, 300, 64), 8, axis=0) + 1e-4 * unit(rng, 2400, 64)
    q = np.concatenate([g[::100] + 0.1 * unit(rng, 24, 64), unit(rng, 8, 64)])
    monkeypatch.setattr("stylesim.retrieval.inner_products.has_reduced_precision", lambda device: shortened)
    for k in (1, 5, 60):
        found = search(q, g, k, block=512).indices.tolist()
        assert found == by_sorting(q, g, k, np.ones((32, 2400), dtype=bool))


def _search_on_a_rank(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    found = search_distributed(*distributed_case(), rank=rank, world=world, **SHARED)
    torch.distributed.destroy_process_group()
    torch.save(tuple(found), folder / f"{rank}.pt")


SHARED = {
    "query_ids": [str(i) for i in range(7)],
    "gallery_ids": [str(i) for i in range(90)],
    "query_groups": torch.arange(7) % 3,
    "gallery_groups": torch.arange(90) % 5,
}


def distributed_case() -> tuple[np.ndarray, np.ndarray, int]:
    rng = np.random.default_rng(0)
    return unit(rng, 7, 3), np.repeat(unit(rng, 45, 3), 2, axis=0), 80


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_every_world_size_finds_the_same_neighbours(tmp_path: Path, world: int):
    preload_in_forkserver()
    mp.start_processes(_search_on_a_rank, (world, tmp_path), world, start_method="forkserver")
    alone = search_distributed(*distributed_case(), rank=0, world=1, **SHARED)
    for rank in range(world):
        indices, similarities = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(indices, alone.indices)
        assert torch.equal(similarities, alone.similarities)


def test_the_matmul_precision_of_the_caller_is_restored():
    torch.set_float32_matmul_precision("medium")
    try:
        search(torch.eye(2), torch.eye(2), 1)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_invalid_arguments_are_refused():
    with pytest.raises(StylesimError, match="same encoder"):
        search(torch.ones(2, 3), torch.ones(2, 4), 1)
    with pytest.raises(StylesimError, match="k must be at least 1, got 0"):
        search(torch.ones(2, 3), torch.ones(2, 3), 0)
    with pytest.raises(StylesimError, match=r"1 of the gallery contain NaN or infinity, the first in row 1"):
        search(torch.ones(2, 3), torch.tensor([[1.0, 1, 1], [1, torch.nan, 1]]), 1)
    with pytest.raises(StylesimError, match="gallery_groups is not"):
        search(torch.ones(2, 3), torch.ones(2, 3), 1, query_groups=torch.tensor([0, 1]))
    with pytest.raises(StylesimError, match="must be of the same kind"):
        search(
            *(torch.ones(2, 3), torch.ones(2, 3), 1),
            query_groups=torch.tensor([0, 1]),
            gallery_groups=torch.ones(2, 4, dtype=torch.bool),
        )


def test_an_empty_query_set_has_no_neighbours():
    gallery = unit(np.random.default_rng(0), 100, 8)
    found = search(gallery[:0], gallery, 3)
    assert found.indices.shape == found.similarities.shape == (0, 3)
