from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_up_styles import DIM, directions, truth, works

from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.attribution.attribution import Attribution
from stylesim.scoring.attribution.attributor import attribute
from stylesim.scoring.attribution.label_whitening import SHRINKAGES, choose_shrinkage, fit_label_whitening, folds
from stylesim.scoring.attribution.labelled_gallery import group_by_label


def with_nuisance(images: DescriptorSet, seed: int) -> DescriptorSet:
    """The images with three strong directions that say nothing about the label, as content does."""
    rng = np.random.default_rng(7)
    axes = np.linalg.qr(rng.standard_normal((DIM, 3)))[0].T
    strength = np.random.default_rng(seed).standard_normal((len(images), 3))
    return DescriptorSet((images.descriptors + strength @ axes).astype(np.float32), images.items, images.meta)


def accuracy(result: Attribution, images: DescriptorSet) -> float:
    return float(np.mean(result.table.query("rank == 1")["label"].to_numpy() == truth(images)))


def test_whitened_works_of_a_label_differ_equally_in_all_directions() -> None:
    grouped = group_by_label(with_nuisance(works(directions(5), 200), 1), "artist:*", 2)
    whitening = fit_label_whitening(grouped, 0.0)
    # The map itself, without the normalisation to unit length.
    whitened = (grouped.vectors - whitening.mean) @ whitening.axes / np.sqrt(whitening.variances)
    residuals = np.concatenate(
        [
            whitened[grouped.works[part]] - whitened[grouped.works[part]].mean(axis=0)
            for part in grouped.columns_by_label
        ]
    )
    covariance = np.cov(residuals.T)
    np.testing.assert_allclose(covariance / covariance[0, 0], np.eye(DIM), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(whitening(grouped.vectors), axis=1), 1, atol=1e-5)


def test_one_projection_gives_every_shrinkage() -> None:
    grouped = group_by_label(works(directions(4), 6), "artist:*", 2)
    whitening = fit_label_whitening(grouped, 0.0)
    for shrinkage, whitened in zip(SHRINKAGES, whitening.at_each_shrinkage(grouped.vectors), strict=True):
        np.testing.assert_allclose(whitened, fit_label_whitening(grouped, shrinkage)(grouped.vectors), atol=1e-6)


def test_folds_hold_each_work_once_and_spread_the_labels() -> None:
    grouped = group_by_label(works(directions(3), [10, 10, 7]), "artist:*", 2)
    parts = folds(grouped, 0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(27))
    for part in parts:
        assert all(1 <= count <= 3 for count in grouped.has_label[part].sum(axis=0))


def test_labels_are_found_behind_what_their_works_differ_in() -> None:
    centres = directions(30)
    gallery = with_nuisance(works(centres, 20, spread=0.1), 1)
    queries = with_nuisance(works(centres, 10, spread=0.1, seed=5, name="q"), 2)
    plain = attribute(queries, gallery, label="artist:*", measure="csls")
    whitened = attribute(queries, gallery, label="artist:*")
    assert accuracy(whitened, queries) > accuracy(plain, queries) + 0.1
    # Folds without the work keep the whitening from fitting the works that it is checked with.
    assert whitened.calibration.accuracy == pytest.approx(accuracy(whitened, queries), abs=0.04)


def test_calibration_does_not_see_a_whitening_that_was_fitted_with_the_work_itself() -> None:
    """With two works per label, such a whitening attributes .92 of them to their label, and .63 of new images."""
    centres = directions(30)
    gallery = with_nuisance(works(centres, 2, spread=0.2), 1)
    queries = with_nuisance(works(centres, 10, spread=0.2, seed=5, name="q"), 2)
    result = attribute(queries, gallery, label="artist:*")
    assert result.settings.shrinkage < 1
    assert result.calibration.accuracy == pytest.approx(accuracy(result, queries), abs=0.1)


def test_labels_without_two_works_are_only_centred() -> None:
    grouped = group_by_label(works(directions(6), 1), "artist:*", 2)
    centred = grouped.vectors - grouped.vectors.mean(axis=0)
    cosines = centred @ centred.T / np.outer(*[np.linalg.norm(centred, axis=1)] * 2)
    whitened = fit_label_whitening(grouped, choose_shrinkage(grouped, 1, 0))(grouped.vectors)
    np.testing.assert_allclose(whitened @ whitened.T, cosines, atol=1e-5)


def test_the_shrinkage_is_chosen_on_works_of_all_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first 60 labels have no nuisance and would choose centring; the others, as many, have it."""
    plain, other = (works(directions(60, seed), 8, spread=0.2, first=60 * seed, name=f"g{seed}") for seed in (0, 1))
    mixed = with_nuisance(other, 1)
    gallery = DescriptorSet(
        np.concatenate([plain.descriptors, mixed.descriptors]),
        pd.concat([plain.items, mixed.items.assign(position=mixed.items["position"] + 480)], ignore_index=True),
        plain.meta,
    )
    grouped = group_by_label(gallery, "artist:*", 2)
    whole = choose_shrinkage(grouped, 3, 0)
    monkeypatch.setattr("stylesim.scoring.attribution.label_whitening.TUNING_WORKS", 480)
    assert whole < 1
    assert choose_shrinkage(grouped, 3, 0) == whole
