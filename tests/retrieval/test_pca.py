from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from stylesim.core.errors import StylesimError
from stylesim.retrieval import pca
from stylesim.retrieval.pca import fit_pca


def table(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Return rows whose variance falls by a third from one direction to the next, with a nonzero mean."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((d, min(d, 30))))[0]
    x = rng.standard_normal((n, rotation.shape[1])) * 1.5 ** -np.arange(rotation.shape[1]) @ rotation.T + rng.random(d)
    return x.astype(np.float32)


@pytest.mark.parametrize("wide", [4096, 10])  # covariances; the randomised range finder
@pytest.mark.parametrize(("n", "d", "dim"), [(200, 40, 5), (200, 40, None), (30, 60, 8), (9, 25, None)])
def test_components_match_a_singular_value_decomposition(monkeypatch, wide, n, d, dim):
    monkeypatch.setattr(pca, "WIDE", wide)
    monkeypatch.setattr(pca, "BLOCK_BYTES", 4 * d * 7)  # seven rows at a time
    x = table(n, d)
    found = fit_pca(x, dim)
    _, values, axes = np.linalg.svd(x - x.mean(axis=0, dtype=np.float64), full_matrices=False)
    rank = min(dim or d, d, n - 1)
    assert found.axes.shape == (d, rank)
    np.testing.assert_allclose(found.variances, (values**2 / (n - 1))[:rank], rtol=1e-3, atol=1e-6)
    strong = values[:rank] > 1e-3 * values[0]
    expected = (x - x.mean(axis=0)) @ axes[:rank].T
    same = found.project(x)[:, strong] * np.sign((found.axes * axes[:rank].T).sum(axis=0))[strong]
    np.testing.assert_allclose(same, expected[:, strong], atol=2e-3)


def test_memory_does_not_grow_with_the_number_of_wide_descriptors(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(pca, "BLOCK_BYTES", 1 << 20)
    peaks = []
    for n in (100, 800):
        grams = np.lib.format.open_memmap(tmp_path / f"{n}.npy", "w+", np.float32, (n, 20000))
        grams[:] = np.random.default_rng(0).random((n, 20000), dtype=np.float32)
        tracemalloc.start()
        fit_pca(grams, 8).project(grams)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 800 * 20000 * 4


def test_too_few_descriptors_and_an_invalid_dim_are_refused():
    with pytest.raises(StylesimError, match="at least two descriptors"):
        fit_pca(np.ones((1, 4), dtype=np.float32))
    with pytest.raises(StylesimError, match="dim of at least 1"):
        fit_pca(np.ones((5, 4), dtype=np.float32), 0)
