"""Turn scores into p-values and probabilities, based on how the gallery's own works are attributed when left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stylesim.scoring.attribution.leave_one_out import LeaveOneOut

MIN_WORKS = 30
"""With fewer attributed works than this, no probability is given."""
BINS = 10


class LogisticModel(NamedTuple):
    """P(the best label is right), by its score and the square root of its margin over the second best label.

    Of the functions of score and margin tried on three data sets and two encoders, this pair was the best calibrated.
    """

    mean: Float[np.ndarray, " f"]
    scale: Float[np.ndarray, " f"]
    weights: Float[np.ndarray, " f1"]

    def probability(self, top: Float[np.ndarray, " m"], margin: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Return the probability for each pair of score and margin; NaN where one of them is."""
        x = (_features(top, margin) - self.mean) / self.scale
        return 1 / (1 + np.exp(-(self.weights[0] + x @ self.weights[1:])))


@dataclass(frozen=True)
class Calibration:
    """How reliable attributions to a gallery are, measured on its own works.

    The works stand for images of unknown origin. Whether the result holds for images of another kind, such as generated
    ones, cannot be measured on the gallery.
    """

    leave_one_out: LeaveOneOut
    model: LogisticModel | None
    """None if fewer than MIN_WORKS works could be attributed."""
    reliability: pd.DataFrame
    """Ten groups of works by predicted probability: `works`, `predicted`, `observed` (the share that was right). Each
    half of the works is predicted by a model fitted on the other half. Empty without a model."""
    ece: float
    """Expected calibration error: mean of |predicted - observed| over the groups, weighted by works."""
    ece_if_calibrated: float
    """Mean ECE of as many works if the predicted probabilities were true: what chance alone gives."""
    auc_open_set: float
    """Probability that a work scores higher than another whose label is not in the gallery."""
    labels: int

    @property
    def accuracy(self) -> float:
        """Share of works whose best label was right."""
        return _mean(self.leave_one_out.correct)

    @property
    def balanced_accuracy(self) -> float:
        """The accuracy with each label counted equally."""
        loo = self.leave_one_out
        label, correct = loo.label[loo.closed], loo.correct[loo.closed]
        return _mean(np.array([correct[label == name].mean() for name in np.unique(label)]))

    @property
    def smallest_p_value(self) -> float:
        """The smallest p-value that this many labels can give."""
        return 1 / (self.labels + 1)

    def p_values(self, scores: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Return the p-values of the hypothesis that an image is by none of the gallery's labels.

        They are conformal: (1 + the sum over labels of the share of its works that scored at least as high with their
        label left out) / (labels + 1). Works of one label are not independent, so the label is the unit (Dunn,
        Wasserman and Ramdas 2022), and K labels give no p-value below 1 / (K + 1). A work's score is that of its
        *best* other label, so the number of labels is accounted for.
        """
        loo = self.leave_one_out
        usable = ~np.isnan(loo.foreign_top)
        label, top = loo.label[usable], loo.foreign_top[usable]
        weight = 1 / np.bincount(label)[label] if len(label) else np.empty(0)
        order = np.argsort(top)
        from_here = np.append(np.cumsum(weight[order][::-1])[::-1], 0)
        exceeding = from_here[np.searchsorted(top[order], scores, side="left")]
        unseen = self.labels - len(set(label.tolist()))  # a label whose works could not be scored counts as exceeding
        return np.minimum(1, (1 + exceeding + unseen) / (self.labels + 1))

    def own_gap(self, confidence: float) -> float:
        """Return the gap between the best and the right label that a share `confidence` of the works does not exceed.

        It is the conformal quantile: inf if there are too few works.
        """
        gaps = np.sort(self.leave_one_out.own_gap[self.leave_one_out.closed])
        rank = int(np.ceil((len(gaps) + 1) * confidence))
        return float(gaps[rank - 1]) if 0 < rank <= len(gaps) else float("inf")


def calibrate(loo: LeaveOneOut, labels: int, seed: int) -> Calibration:
    """Fit the probability model, and check it on works that it was not fitted on.

    Args:
        loo: The gallery's own attributions.
        labels: Number of labels of the gallery.
        seed: Seed of the division into halves.
    """
    usable = loo.closed & ~np.isnan(loo.margin)
    top, margin, correct = loo.top[usable], loo.margin[usable], loo.correct[usable]
    model, ece, expected = None, float("nan"), float("nan")
    reliability = pd.DataFrame(columns=["works", "predicted", "observed"])
    if len(correct) >= MIN_WORKS:
        rng = np.random.default_rng(seed)
        model = fit_logistic(top, margin, correct)
        half = rng.permutation(len(correct)) % 2 == 0
        predicted = np.empty(len(correct))
        for part in (half, ~half):
            predicted[part] = fit_logistic(top[~part], margin[~part], correct[~part]).probability(
                top[part], margin[part]
            )
        reliability = reliability_curve(predicted, correct)
        ece = calibration_error(reliability)
        draws = [reliability_curve(predicted, rng.random(len(predicted)) < predicted) for _ in range(200)]
        expected = float(np.mean([calibration_error(draw) for draw in draws]))
    auc = rank_auc(loo.known_top[loo.closed], loo.foreign_top[~np.isnan(loo.foreign_top)])
    return Calibration(loo, model, reliability, ece, expected, auc, labels)


def fit_logistic(
    top: Float[np.ndarray, " m"], margin: Float[np.ndarray, " m"], correct: Float[np.ndarray, " m"]
) -> LogisticModel:
    """Fit a logistic regression by Newton's method, with a ridge of 1 on the standardised slopes.

    Half a right and half a wrong observation at the mean keep the probability away from 0 and 1, even if all
    attributions were right, or none.
    """
    x = _features(top, margin)
    mean, scale = x.mean(axis=0), x.std(axis=0).clip(min=1e-9)
    x = np.vstack([(x - mean) / scale, np.zeros((2, 2))])
    x = np.hstack([np.ones((len(x), 1)), x])
    y, weight = np.append(correct, [0, 1]), np.append(np.ones(len(correct)), [0.5, 0.5])
    ridge, weights = np.diag([0.0, 1.0, 1.0]), np.zeros(3)
    for _ in range(50):
        p = 1 / (1 + np.exp(-(x @ weights)))
        gradient = x.T @ (weight * (p - y)) + ridge @ weights
        step = np.linalg.solve((x.T * (weight * p * (1 - p))) @ x + ridge + 1e-9 * np.eye(3), gradient)
        weights = weights - step.clip(-5, 5)
        if np.abs(step).max() < 1e-8:
            break
    return LogisticModel(mean, scale, weights)


def _features(top: Float[np.ndarray, " m"], margin: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m f"]:
    return np.stack([np.sqrt(margin), top], axis=1)


def reliability_curve(predicted: Float[np.ndarray, " m"], correct: Float[np.ndarray, " m"]) -> pd.DataFrame:
    """Divide works into BINS groups of equal size by predicted probability; see `Calibration.reliability`."""
    groups = [group for group in np.array_split(np.argsort(predicted, kind="stable"), BINS) if len(group)]
    rows = [(len(group), predicted[group].mean(), np.mean(correct[group])) for group in groups]
    return pd.DataFrame(rows, columns=["works", "predicted", "observed"])


def calibration_error(reliability: pd.DataFrame) -> float:
    """Return the expected calibration error of a reliability curve (Naeini et al. 2015; groups of equal size)."""
    gaps = (reliability["predicted"] - reliability["observed"]).abs()
    return float(np.average(gaps, weights=reliability["works"]))


def rank_auc(positive: Float[np.ndarray, " p"], negative: Float[np.ndarray, " n"]) -> float:
    """Return the probability that a value of `positive` exceeds one of `negative`, ties counting half; NaN if empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    order = np.sort(negative)
    below: Int[np.ndarray, " p"] = np.searchsorted(order, positive, "left") + np.searchsorted(order, positive, "right")
    return float(below.mean() / 2 / len(negative))


def _mean(values: Float[np.ndarray, " m"]) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
