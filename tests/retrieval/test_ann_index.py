from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch

from stylesim.core.errors import StylesimError
from stylesim.retrieval.ann_index import approximate_search, build_ann_index
from stylesim.retrieval.exact_search import search


def clusters(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.random.default_rng(9).standard_normal((20, 16))[rng.integers(20, size=n)] + 0.4 * rng.standard_normal(
        (n, 16)
    )
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("kind", "least"), [("ivf", 0.5), ("hnsw", 0.99), ("pq", 0.3)])
def test_an_index_reports_its_recall(kind, least):
    pytest.importorskip("faiss")
    gallery, queries = clusters(2000), clusters(60, seed=1)
    exact = search(queries, gallery, 10)
    result = approximate_search(build_ann_index(gallery, kind), queries, 10, sample=60)

    pairs = zip(exact.indices.tolist(), result.neighbours.indices.tolist(), strict=True)
    assert result.recall == pytest.approx(
        np.mean([len(set(true) & set(approximate)) / 10 for true, approximate in pairs])
    )
    assert result.sampled == 60
    assert least < result.recall <= 1
    # Similarities are exact and descending, even if the index stores only codes.
    indices = result.neighbours.indices.numpy()
    true = (queries[:, None] * gallery[indices]).sum(-1)
    np.testing.assert_allclose(result.neighbours.similarities, np.where(indices < 0, -np.inf, true), atol=1e-6)
    similarities = result.neighbours.similarities
    assert (similarities[:, 1:] <= similarities[:, :-1]).all()


def test_a_gallery_smaller_than_k_is_padded_as_in_exact_search():
    pytest.importorskip("faiss")
    gallery, queries = clusters(12), clusters(3, seed=1)
    result, exact = approximate_search(build_ann_index(gallery), queries, 20), search(queries, gallery, 20)
    assert torch.equal(result.neighbours.indices, exact.indices)
    assert result.recall == 1


def test_without_faiss_the_search_is_exact(monkeypatch):
    importer = builtins.__import__

    def without_faiss(name, *more):
        if name == "faiss":
            raise ImportError
        return importer(name, *more)

    monkeypatch.setattr(builtins, "__import__", without_faiss)
    gallery, queries = clusters(300), clusters(5, seed=1)
    result = approximate_search(build_ann_index(gallery, "ivf"), queries, 7)
    assert torch.equal(result.neighbours.indices, search(queries, gallery, 7).indices)
    assert result.recall == 1


def test_an_unknown_kind_and_too_few_descriptors_are_refused():
    with pytest.raises(StylesimError, match="must be ivf, hnsw or pq, got 'lsh'"):
        build_ann_index(clusters(9), "lsh")  # type: ignore[arg-type]
    with pytest.raises(StylesimError, match="at least 256 descriptors, got 200"):
        build_ann_index(clusters(200), "pq")
