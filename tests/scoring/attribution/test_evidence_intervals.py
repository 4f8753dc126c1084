from __future__ import annotations

import numpy as np
import pytest

from stylesim.scoring.attribution.evidence_intervals import (
    RESAMPLES,
    _largest_of_resamples,
    expansion,
    score_interval,
)
from stylesim.scoring.attribution.label_evidence import Evidence

POOLED = Evidence(pool="pooled")


@pytest.mark.parametrize("count", [3, 5, 10, 40])
def test_intervals_of_pooled_scores_cover_the_mean_of_all_possible_works(count: int) -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        values = rng.normal(0.4, 0.1, count)
        low, high = score_interval(values, values.mean(), 0.0, 0.1, POOLED, 0)
        covered += low <= 0.4 <= high
    assert 0.92 <= covered / 1000 <= 0.985


def test_the_largest_values_of_resamples_have_their_distribution() -> None:
    count, most = 7, 3
    fast = _largest_of_resamples(count, most, 0)
    rng = np.random.default_rng(1)
    plain = np.sort(rng.integers(count, size=(20 * RESAMPLES, count)), axis=1)[:, :most]
    np.testing.assert_allclose(fast.mean(axis=0), plain.mean(axis=0), atol=0.12)
    np.testing.assert_allclose(fast.std(axis=0), plain.std(axis=0), atol=0.12)
    assert (np.diff(fast, axis=1) >= 0).all()


def test_fewer_works_give_wider_intervals() -> None:
    widths = []
    for count in (2, 3, 6, 20, 100):
        values = np.linspace(0.3, 0.5, count)
        low, high = score_interval(values, values.mean(), 0.0, 0.06, POOLED, 0)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert expansion(2) == pytest.approx(9.17, abs=0.01)
    assert expansion(1000) == pytest.approx(1, abs=0.01)


def test_a_single_work_takes_the_spread_of_the_others_or_has_no_interval() -> None:
    low, high = score_interval(np.array([0.4]), 0.4, 0.0, 0.05, Evidence(), 0)
    assert high - low == pytest.approx(2 * 12.706 * 0.05)
    assert np.isnan(score_interval(np.array([0.4]), 0.4, 0.0, float("nan"), Evidence(), 0)).all()


def test_an_interval_holds_its_score() -> None:
    rng = np.random.default_rng(0)
    for count in (2, 3, 4, 30):
        values = rng.normal(size=count)
        score = np.sort(values)[::-1][:3].sum() / 3 if count >= 3 else (values.sum() + 0.1) / 3
        low, high = score_interval(values, score, 0.1, 1.0, Evidence(), 0)
        assert low <= score <= high
