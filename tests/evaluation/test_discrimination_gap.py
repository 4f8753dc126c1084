from __future__ import annotations

import numpy as np
import pytest
from clusters import artists
from hypothesis import given, settings
from hypothesis import strategies as st

from stylesim.core.errors import StylesimError
from stylesim.evaluation.discrimination_gap import discrimination_gap
from stylesim.evaluation.pair_verification import verification_auc


@settings(max_examples=15)
@given(st.integers(0, 99))
def test_the_pairwise_gap_matches_loops_over_pairs(seed):
    x, labels = artists(seed)
    found = discrimination_gap(x, labels, variant="pairwise", resamples=10).set_index("label")
    for name in set(labels):
        mine = [i for i, label in enumerate(labels) if label == name]
        own = np.mean([x[i] @ x[j] for i in mine for j in mine if i != j])
        others = {
            other: np.mean([x[i] @ x[j] for i in mine for j in range(len(x)) if labels[j] == other])
            for other in set(labels) - {name}
        }
        row = found.loc[name]
        assert row["nearest"] == max(others, key=lambda other: others[other])
        assert (row["images"], row["own"]) == (len(mine), pytest.approx(own, abs=1e-5))
        assert row["gap"] == pytest.approx(own - max(others.values()), abs=1e-5)


@settings(max_examples=15)
@given(st.integers(0, 99))
def test_the_prototype_gap_leaves_each_image_out_of_its_own_prototype(seed):
    x, labels = artists(seed)
    found = discrimination_gap(x, labels, resamples=10).set_index("label")

    def similarity(i: int, name: str) -> float:
        mean = np.mean([x[j] for j in range(len(x)) if labels[j] == name and j != i], axis=0)
        return float(x[i] @ mean / np.linalg.norm(mean))

    for name in set(labels):
        mine = [i for i, label in enumerate(labels) if label == name]
        scores = {other: np.mean([similarity(i, other) for i in mine]) for other in set(labels)}
        own = scores.pop(name)
        assert found.loc[name, "own"] == pytest.approx(own, abs=1e-5)
        assert found.loc[name, "gap"] == pytest.approx(own - max(scores.values()), abs=1e-5)


def test_a_label_that_mixes_two_styles_has_no_clear_gap():
    rng = np.random.default_rng(0)
    centres = {"one": [(1, 0, 0)], "two": [(0, 1, 0), (0, 0, 1)], "like half of two": [(0, 1, 0)]}
    labels = [name for name in centres for _ in range(40)]
    x = np.array([centres[name][i % len(centres[name])] for i, name in enumerate(labels)], dtype=float)
    x += 0.1 * rng.standard_normal(x.shape)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = discrimination_gap(x, labels, variant="pairwise").set_index("label")
    gap, positive = found["gap"].to_dict(), found["positive"].to_dict()
    assert gap["one"] > 0.8
    assert positive["one"] == 1
    assert abs(gap["two"]) < 0.1, "half of its images look like the other label"
    assert 0.05 < positive["two"] < 0.95
    low, middle, high = (found[column].to_numpy() for column in ("low", "gap", "high"))
    assert ((low < middle) & (middle < high)).all()
    again = discrimination_gap(x, labels, variant="pairwise").set_index("label")
    assert again.equals(found)


@settings(max_examples=10)
@given(st.integers(0, 99))
def test_csls_gaps_and_pairs_match_its_formula(seed):
    x, labels = artists(seed)
    cosine, k = x @ x.T, 3
    np.fill_diagonal(cosine, -np.inf)
    r = np.sort(cosine, axis=1)[:, -k:].mean(axis=1)
    score = 2 * cosine - r[:, None] - r
    pairwise = discrimination_gap(x, labels, variant="pairwise", csls=k, resamples=10).set_index("label")
    prototype = discrimination_gap(x, labels, csls=k, resamples=10).set_index("label")
    means = {name: x[[i for i, label in enumerate(labels) if label == name]].mean(axis=0) for name in set(labels)}
    means = {name: mean / np.linalg.norm(mean) for name, mean in means.items()}
    hub = {name: np.sort(x @ mean)[-k:].mean() for name, mean in means.items()}
    for name in set(labels):
        mine = np.array([label == name for label in labels])
        own = score[np.ix_(mine, mine)][~np.eye(mine.sum(), dtype=bool)].mean()
        others = [score[np.ix_(mine, np.array(labels) == other)].mean() for other in set(labels) - {name}]
        assert pairwise.loc[name, "gap"] == pytest.approx(own - max(others), abs=1e-5)
        rest = [x[mine & (np.arange(len(x)) != i)].mean(axis=0) for i in np.flatnonzero(mine)]
        own = np.mean([2 * a @ b / np.linalg.norm(b) for a, b in zip(x[mine], rest, strict=True)]) - hub[name]
        others = [2 * (x[mine] @ means[other]).mean() - hub[other] for other in set(labels) - {name}]
        assert prototype.loc[name, "gap"] == pytest.approx(own - max(others), abs=1e-5)
    alike = np.array(labels)[:, None] == np.array(labels)
    upper = np.triu(np.ones_like(alike), 1)
    same, different = score[upper & alike], score[upper & ~alike]
    assert verification_auc(x, labels, csls=k).auc == pytest.approx((same[:, None] > different).mean(), abs=1e-4)


def test_a_label_of_one_image_has_no_gap():
    x, labels = artists(0, (1, 4))
    found = discrimination_gap(x, labels).set_index("label")
    assert found.loc["a"].isna().tolist() == [False, True, False, False, True, True, True, True]
    assert found.loc["b"].notna().all()


def test_too_few_labels_and_unknown_variants_are_refused():
    x = np.eye(3, dtype=np.float32)
    with pytest.raises(StylesimError, match="at least two"):
        discrimination_gap(x, list("aaa"))
    with pytest.raises(StylesimError, match="No two images have the same label"):
        verification_auc(x, list("abc"))
    with pytest.raises(StylesimError, match="one label"):
        verification_auc(x, list("ab"))
    with pytest.raises(StylesimError, match="'prototype' or 'pairwise'"):
        discrimination_gap(x, list("aab"), variant="median")  # type: ignore[arg-type]
