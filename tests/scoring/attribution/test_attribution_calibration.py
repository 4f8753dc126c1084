from __future__ import annotations

import numpy as np
import pytest

from stylesim.scoring.attribution.attribution_calibration import (
    MIN_WORKS,
    calibrate,
    calibration_error,
    fit_logistic,
    rank_auc,
    reliability_curve,
)
from stylesim.scoring.attribution.leave_one_out import LeaveOneOut


def made_up(labels: int, works: int, seed: int, *, shift: float = 1.0) -> LeaveOneOut:
    """Works whose best score is about `shift` higher with their label than without; labels differ in their level."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(labels), works)
    level = rng.normal(0, 0.5, labels)[label]
    margin = rng.exponential(1, len(label))
    correct = (rng.random(len(label)) < 1 / (1 + np.exp(1 - 2 * np.sqrt(margin)))).astype(float)
    return LeaveOneOut(
        work=np.arange(len(label)),
        label=label,
        best=label,
        top=level + shift + rng.normal(0, 0.5, len(label)),
        margin=margin,
        correct=correct,
        own_gap=np.where(correct == 1, 0, rng.exponential(1, len(label))),
        own_works=np.full(len(label), works - 1),
        known_top=level + shift + rng.normal(0, 0.5, len(label)),
        foreign_top=level + rng.normal(0, 0.5, len(label)),
    )


def test_p_values_are_valid_for_images_of_new_labels() -> None:
    shares = {alpha: [] for alpha in (0.05, 0.1, 0.2, 0.5)}
    for seed in range(300):
        loo = made_up(40, 8, seed)
        new = loo.foreign_top[loo.label == 0]
        rest = LeaveOneOut(*(values[loo.label > 0] for values in vars(loo).values()))
        rest = LeaveOneOut(**{**vars(rest), "label": rest.label - 1})
        p_values = calibrate_without_fit(rest, 39).p_values(new)
        for alpha in shares:
            shares[alpha].append((p_values <= alpha).mean())
    for alpha, values in shares.items():
        assert np.mean(values) <= alpha + 0.02, alpha


def calibrate_without_fit(loo: LeaveOneOut, labels: int):
    few = LeaveOneOut(**{**vars(loo), "correct": np.full(len(loo.work), np.nan)})
    return calibrate(few, labels, 0)


def test_p_values_fall_with_the_score_and_stay_above_the_number_of_labels() -> None:
    calibration = calibrate(made_up(19, 5, 0), 19, 0)
    p_values = calibration.p_values(np.linspace(-9, 9, 100))
    assert (np.diff(p_values) <= 0).all()
    assert p_values[0] == pytest.approx(1)
    assert p_values[-1] == pytest.approx(calibration.smallest_p_value) == pytest.approx(0.05)


def test_a_label_that_could_not_be_scored_counts_against() -> None:
    loo = made_up(10, 3, 0)
    some = LeaveOneOut(**{**vars(loo), "foreign_top": np.where(loo.label == 4, np.nan, loo.foreign_top)})
    assert calibrate(some, 10, 0).p_values(np.array([99.0]))[0] == pytest.approx(2 / 11)


def test_probabilities_are_calibrated_and_the_error_is_that_of_chance() -> None:
    calibration = calibrate(made_up(40, 50, 0), 40, 0)
    assert calibration.ece < 0.05
    assert calibration.ece == pytest.approx(calibration.ece_if_calibrated, abs=0.015)
    assert np.sum(calibration.reliability["works"]) == 2000


def test_too_few_works_give_no_probability() -> None:
    assert calibrate(made_up(5, MIN_WORKS // 5 - 1, 0), 5, 0).model is None
    assert calibrate(made_up(5, MIN_WORKS // 5, 0), 5, 0).model is not None


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_works_that_are_all_right_or_all_wrong_give_no_certainty(outcome: float) -> None:
    rng = np.random.default_rng(0)
    top, margin = rng.normal(size=40), rng.exponential(size=40)
    probability = fit_logistic(top, margin, np.full(40, outcome)).probability(top, margin)
    assert np.abs(probability - outcome).max() < 0.1
    assert np.abs(probability - outcome).min() > 0.001


def test_the_own_gap_holds_the_right_label_with_the_confidence() -> None:
    calibration = calibrate(made_up(40, 10, 0), 40, 0)
    gap = calibration.own_gap(0.9)
    assert (calibration.leave_one_out.own_gap <= gap).mean() == pytest.approx(0.9, abs=0.01)
    assert calibrate(made_up(2, 3, 0), 2, 0).own_gap(0.9) == float("inf")


def test_the_calibration_error_is_the_mean_distance_from_the_diagonal() -> None:
    predicted = np.repeat(np.linspace(0.05, 0.95, 10), 20)
    curve = reliability_curve(predicted, np.ones(200))
    assert calibration_error(curve) == pytest.approx(0.5)
    assert len(curve) == 10


def test_auc_counts_ties_half() -> None:
    assert rank_auc(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx(0.875)
    assert np.isnan(rank_auc(np.array([]), np.array([1.0])))
