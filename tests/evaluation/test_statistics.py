from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from stylesim.core.errors import StylesimError
from stylesim.evaluation.statistics import bootstrap_interval, holm, independent_difference, paired_difference


def test_the_interval_of_a_share_matches_the_binomial_one():
    values = np.repeat([0.0, 1.0], [300, 700])
    low, high = bootstrap_interval(values)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 1000)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.004)
    narrow = bootstrap_interval(values, level=0.5)
    assert low < narrow[0] < 0.7 < narrow[1] < high


def test_the_interval_covers_the_true_mean_at_its_level():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.exponential(size=80), level=0.9, resamples=300) for _ in range(300)]
    assert 0.84 < np.mean([low <= 1 <= high for low, high in intervals]) < 0.94


def test_queries_without_a_value_are_left_out():
    values = np.array([0.2, np.nan, 0.4, np.nan, 0.9])
    assert bootstrap_interval(values) == bootstrap_interval(values[[0, 2, 4]])
    assert np.isnan(bootstrap_interval(np.array([np.nan]))).all()
    with pytest.raises(StylesimError, match="between 0 and 1"):
        bootstrap_interval(values, level=95)


@settings(max_examples=20)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=8))
def test_the_p_value_matches_all_sign_flips(differences):
    a = np.array(differences)
    flips = [abs(sum(s * d for s, d in zip(signs, a, strict=True))) for signs in product((-1, 1), repeat=len(a))]
    exact = np.mean([flip >= abs(a.sum()) - 1e-9 for flip in flips])
    assert paired_difference(a, np.zeros(len(a)), resamples=4000).p_value == pytest.approx(exact, abs=0.04)


def test_only_encoders_that_differ_have_a_small_p_value():
    rng = np.random.default_rng(0)
    difficulty = rng.random(400)
    a = (rng.random(400) < difficulty).astype(float)
    better = np.maximum(a, rng.random(400) < 0.1)
    found = paired_difference(better, a)
    assert found.mean == pytest.approx((better - a).mean())
    assert 0 < found.low < found.mean < found.high
    assert found.p_value < 0.01
    assert paired_difference(a, better) == pytest.approx(
        (-found.mean, -found.high, -found.low, found.p_value), abs=0.01
    )
    assert paired_difference(a, a).p_value == 1
    assert paired_difference(a, rng.permutation(a)).p_value > 0.05


def test_only_queries_with_both_values_are_compared():
    a, b = np.array([1.0, np.nan, 0.5, 0.0]), np.array([0.5, 1.0, np.nan, 0.5])
    assert paired_difference(a, b) == paired_difference(a[[0, 3]], b[[0, 3]])
    with pytest.raises(StylesimError, match="same queries"):
        paired_difference(a, b[:3])
    with pytest.raises(StylesimError, match="nothing to compare"):
        paired_difference(a[1:2], b[1:2])


def test_intervals_and_p_values_match_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.random(60), rng.random(60)
    expected = scipy.stats.bootstrap(
        (a - b,), np.mean, n_resamples=2000, batch=1, method="percentile", rng=np.random.default_rng(0)
    )
    here = paired_difference(a, b)
    assert (here.low, here.high) == pytest.approx(tuple(expected.confidence_interval), abs=1e-12)
    test = scipy.stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", n_resamples=10000, rng=rng
    )
    assert here.p_value == pytest.approx(test.pvalue, abs=0.02)


def test_holm_multiplies_by_the_number_of_hypotheses_that_remain() -> None:
    corrected = holm(np.array([0.01, 0.04, 0.03, np.nan]))
    assert corrected[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(corrected[3])


def test_independent_difference_covers_and_rejects() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 80), rng.normal(0, 2, 60)
    result = independent_difference(a, b)
    assert result.low < 1 < result.high
    assert result.p_value < 0.01
    assert np.isnan(independent_difference(a[:1], b).p_value)
