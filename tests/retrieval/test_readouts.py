from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from stylesim.core.conf import conf_dir
from stylesim.core.errors import StylesimError
from stylesim.core.targets import check_targets
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table
from stylesim.retrieval.exact_search import search
from stylesim.retrieval.readouts import Cosine, Csls, Pca, Whitened


def unit(seed: int, n: int, d: int = 6) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@settings(max_examples=25)
@given(st.integers(0, 99), st.integers(1, 9), st.integers(1, 30), st.integers(1, 12))
def test_csls_matches_its_formula(seed, n_queries, n_gallery, k):
    q, g = unit(seed, n_queries), unit(seed + 1, n_gallery)
    cosine = (q @ g.T).astype(np.float64)
    r_q = np.sort(cosine, axis=1)[:, ::-1][:, :k].mean(axis=1)
    r_g = np.sort(cosine, axis=0)[::-1][:k].mean(axis=0)
    expected = 2 * cosine - r_q[:, None] - r_g[None]

    queries, gallery = Csls(k)(q, g)
    np.testing.assert_allclose(queries @ gallery.T, expected, atol=1e-5)
    found = search(queries, gallery, n_gallery)
    np.testing.assert_allclose(found.similarities, np.sort(expected, axis=1)[:, ::-1], atol=1e-5)


def test_csls_lowers_the_score_of_a_hub():
    """The mean of all queries is nearer to each query than the query's own counterpart."""
    q = np.eye(8, dtype=np.float32)[:4]
    counterparts = 0.45 * q + np.sqrt(1 - 0.45**2) * np.eye(8, dtype=np.float32)[4:]
    g = np.concatenate([counterparts, q.sum(axis=0, keepdims=True) / 2]).astype(np.float32)
    by_cosine, by_csls = (search(*readout(q, g), 1).indices.flatten().tolist() for readout in (Cosine(), Csls(k=2)))
    assert by_cosine == [4, 4, 4, 4]
    assert by_csls == [0, 1, 2, 3]


def test_csls_does_not_count_an_image_as_its_own_neighbour():
    x, ids = unit(0, 12), [str(i) for i in range(12)]
    queries, gallery = Csls(k=3)(x, x, query_ids=ids, gallery_ids=ids)
    cosine = x @ x.T - 9 * np.eye(12)
    nearest = np.sort(cosine, axis=1)[:, ::-1][:, :3].mean(axis=1)
    scores = (queries @ gallery.T)[~np.eye(12, dtype=bool)]
    expected = (2 * cosine - nearest[:, None] - nearest[None])[~np.eye(12, dtype=bool)]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_whitened_gallery_has_equal_variance_in_every_direction():
    x = np.random.default_rng(0).standard_normal((500, 6)).astype(np.float32) * [9, 3, 1, 1, 0.1, 0] + 5
    queries, gallery = Whitened()(x[:7], x)
    assert queries.shape == (7, 5), "an axis without variance is dropped"
    np.testing.assert_allclose(np.linalg.norm(gallery, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.cov(gallery.T), np.eye(5) / 5, atol=0.05)
    np.testing.assert_allclose(queries, gallery[:7], atol=1e-6)
    assert Whitened(dim=2)(x[:7], x)[0].shape == (7, 2)


def test_fit_selects_the_set_that_is_fitted(tmp_path: Path):
    q, g, other = unit(0, 40), unit(1, 50) * [1, 1, 3, 1, 1, 1], unit(2, 60) * [5, 1, 1, 1, 1, 1]
    items = item_table((str(i), [], None, "x", i) for i in range(60))
    DescriptorSet(other.astype(np.float32), items, {"encoder_digest": "e"}).save(tmp_path / "other")
    on_gallery, on_query, on_other = (
        Whitened(fit=fit)(q, g)[0] for fit in ("gallery", "query", str(tmp_path / "other"))
    )
    np.testing.assert_allclose(on_query, Whitened()(q, q)[0], atol=1e-5)
    np.testing.assert_allclose(on_other, Whitened()(q, other)[0], atol=1e-4)
    assert np.abs(on_gallery - on_query).max() > 0.1
    with pytest.raises(StylesimError, match="same encoder"):
        Whitened(fit=str(tmp_path / "other"))(q[:, :3], g[:, :3])


def test_pca_with_all_components_preserves_the_cosines_of_centred_descriptors():
    q, g = unit(0, 30), unit(1, 80)
    queries, gallery = Pca(dim=6)(q, g)
    a, b = (x - g.mean(axis=0) for x in (q, g))
    cosine = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)[None]
    np.testing.assert_allclose(queries @ gallery.T, cosine, atol=1e-5)


def test_pca_without_renormalise_matches_the_published_code():
    """Fit on unit queries; project the gallery at its own length, and normalise it afterwards."""
    rng = np.random.default_rng(0)
    q, g = (rng.random((n, 6)).astype(np.float32) * rng.random((n, 1)).astype(np.float32) * 9 for n in (40, 25))
    units = q / np.linalg.norm(q, axis=1, keepdims=True)
    mean = units.mean(axis=0)
    axes = np.linalg.svd(units - mean, full_matrices=False)[2][:3].T
    projected = (g - mean) @ axes
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)

    queries, gallery = Pca(dim=3, fit="query", renormalise=False)(q, g)
    np.testing.assert_allclose(queries @ gallery.T, (units - mean) @ axes @ projected.T, atol=1e-5)
    assert (
        np.abs(gallery @ gallery.T - Pca(dim=3, fit="query")(q, g)[1] @ Pca(dim=3, fit="query")(q, g)[1].T).max() > 0.1
    )


@pytest.mark.parametrize("file", sorted((conf_dir() / "readout").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_readout_config_is_valid_and_builds_its_readout(file: Path):
    cfg = DictConfig({"readout": OmegaConf.load(file)})
    check_targets(cfg)
    q, g = unit(0, 5), unit(1, 40)
    queries, gallery = instantiate(cfg.readout)(q, g)
    assert (len(queries), len(gallery)) == (5, 40)
    assert queries.shape[1] == gallery.shape[1]
    with pytest.raises(StylesimError, match=r"readout\.dims is not a parameter"):
        check_targets(DictConfig({"readout": {**cfg.readout, "dims": 4}}))


def test_whitening_fitted_on_too_few_images_is_refused():
    with pytest.raises(StylesimError, match=r"Set readout\.dim to far fewer"):
        Whitened()(unit(0, 4), unit(1, 6))
    queries, gallery = Whitened(dim=2)(unit(0, 4), unit(1, 6))
    assert queries.shape == (4, 2)
    assert gallery.shape == (6, 2)
