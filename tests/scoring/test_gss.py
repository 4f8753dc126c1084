from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylesim.scoring.gss import (
    gap_to_best_other,
    image_scores,
    leave_one_out_similarities,
    mean_scores,
    neighbourhood_similarities,
    reference_similarities,
)

# Two orthogonal works, so r̄ = (.5, .5) of length √.5; one generated image is the first work, one their bisector.
WORKS = np.array([[1.0, 0.0], [0.0, 1.0]])
GENERATED = np.array([[1.0, 0.0], [0.5**0.5, 0.5**0.5]])


def unit(seed: int, n: int, d: int = 6) -> np.ndarray:
    """Return descriptors around a common direction, like those of images."""
    rows = np.random.default_rng(seed).normal(size=(n, d)) + 1.0
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_mean_scores_of_a_case_computed_by_hand() -> None:
    # <g, r̄>: .5 and √.5. |r̄| = √.5. ḡ = ((1 + √.5) / 2, √.5 / 2), |ḡ|² = (1 + √.5) / 2.
    metrics = mean_scores(GENERATED.mean(0), WORKS.mean(0))
    assert metrics["gss"] == pytest.approx((0.5 + 0.5**0.5) / 2)
    assert metrics["gss_unit_prototype"] == pytest.approx((0.5**0.5 + 1) / 2)
    assert metrics["gss_renormalised"] == pytest.approx(((1 + 0.5**0.5) / 2) ** 0.5)
    assert mean_scores(torch.tensor(GENERATED).mean(0), torch.tensor(WORKS).mean(0)) == pytest.approx(metrics)


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 9))
def test_the_means_of_image_scores_are_the_mean_scores(seed: int, n: int, m: int) -> None:
    generated, works = unit(seed, n), unit(seed + 1, m)
    values = image_scores(generated, works, np.zeros(n), np.zeros(m))
    metrics = mean_scores(generated.mean(0), works.mean(0))
    assert {name: values[name].mean() for name in metrics} == pytest.approx(metrics)
    assert values["gss"].mean() == pytest.approx((generated @ works.T).mean()), "the mean of all pairs"


def test_the_variance_of_gss_renormalised_matches_the_jackknife() -> None:
    generated, works = unit(0, 200), unit(1, 50)
    values = image_scores(generated, works, np.zeros(200), np.zeros(50))["gss_renormalised"]
    without = [mean_scores(np.delete(generated, i, 0).mean(0), works.mean(0))["gss_renormalised"] for i in range(200)]
    jackknife = 199 / 200 * np.square(np.subtract(without, np.mean(without))).sum()
    assert values.var(ddof=1) / 200 == pytest.approx(jackknife, rel=0.02)


@pytest.mark.parametrize("k", [1, 3, 100])
def test_neighbourhoods_and_csls_match_the_full_table(k: int) -> None:
    generated, works = unit(2, 7).astype(np.float32), unit(3, 5).astype(np.float32)
    table = generated.astype(float) @ works.T.astype(float)
    near = [np.sort(t, axis=1)[:, -k:].mean(1) for t in (table, table.T)]
    found = neighbourhood_similarities(generated, works, k)
    np.testing.assert_allclose(found[0], near[0], atol=1e-6)
    np.testing.assert_allclose(found[1], near[1], atol=1e-6)
    csls = (2 * table - near[0][:, None] - near[1]).mean(1)
    np.testing.assert_allclose(image_scores(generated, works, *found)["csls"], csls, atol=1e-6)


def test_reference_similarities_leave_each_work_out_of_its_own_prototype() -> None:
    works = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    same, different, others = reference_similarities(works, {"a": np.array([0, 1]), "b": np.array([2])})
    assert same.tolist() == pytest.approx([0.6, 0.6]), "label b has a single work and so no value"
    # The work of b with a's prototype (.8, .4), the works of a with b's.
    assert sorted(different) == pytest.approx([0.0, 0.4, 0.8])
    assert others.tolist() == pytest.approx([0.3, 0.7, 0.4])
    table = works @ works.T
    assert leave_one_out_similarities(works).mean() == pytest.approx(table[~np.eye(3, dtype=bool)].mean())


@pytest.mark.parametrize(
    ("n", "labels", "lengths"), [(5, {}, (0, 0, 5)), (5, {"a": range(5)}, (5, 0, 5)), (1, {}, (0, 0, 0))]
)
def test_similarities_without_enough_works_or_labels_are_empty(
    n: int, labels: dict[str, range], lengths: tuple[int, int, int]
) -> None:
    found = reference_similarities(unit(0, n), {name: np.array(rows) for name, rows in labels.items()})
    assert tuple(map(len, found)) == lengths


def test_a_large_set_of_works_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    works, labels = unit(4, 60), {"a": np.arange(30), "b": np.arange(30, 60)}
    whole = reference_similarities(works, labels).different
    monkeypatch.setattr("stylesim.scoring.gss.MAX_DIFFERENT", 40)
    sampled = reference_similarities(works, labels).different
    assert len(whole) == 60
    assert len(sampled) == 20
    assert set(sampled) < set(whole)


def test_the_gap_is_own_minus_the_best_other() -> None:
    assert gap_to_best_other(np.array([0.2, 0.7, 0.5]), own=2) == (pytest.approx(-0.2), 1)
    assert gap_to_best_other(np.array([0.2, 0.7, 0.5]), own=1) == (pytest.approx(0.2), 2)
    gap, other = gap_to_best_other(np.array([0.9]), own=0)
    assert np.isnan(gap)
    assert other is None


@settings(max_examples=25)
@given(st.integers(0, 99), st.permutations(range(6)), st.permutations(range(8)))
def test_the_order_of_images_does_not_matter(seed: int, gen_order: list[int], ref_order: list[int]) -> None:
    generated, works = unit(seed, 6), unit(seed + 1, 8)
    values = image_scores(generated, works, *neighbourhood_similarities(generated, works, 3))
    mixed = image_scores(
        generated[gen_order], works[ref_order], *neighbourhood_similarities(generated[gen_order], works[ref_order], 3)
    )
    for name in values:
        np.testing.assert_allclose(mixed[name], values[name][gen_order], atol=1e-6)
