from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylesim.core.errors import StylesimError
from stylesim.evaluation.discrimination import discrimination_gap, separation, similarity_profile, verification_auc
from stylesim.retrieval.descriptors import DescriptorSet, item_table
from stylesim.retrieval.readouts import Csls


def artists(seed: int, sizes: tuple[int, ...] = (5, 4, 7), noise: float = 0.6) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels = [chr(97 + label) for label, size in enumerate(sizes) for _ in range(size)]
    x = np.concatenate([rng.standard_normal(8) + noise * rng.standard_normal((size, 8)) for size in sizes])
    order = rng.permutation(len(x))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return x[order], [labels[i] for i in order]


@settings(max_examples=15)
@given(st.integers(0, 99))
def test_the_pairwise_gap_is_that_of_loops_over_pairs(seed):
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
def test_the_prototype_gap_leaves_an_image_out_of_its_own_prototype(seed):
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


def test_a_label_that_is_two_is_found_out_and_the_bootstrap_says_how_surely():
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
    assert abs(gap["two"]) < 0.1, "half of its works are the other's"
    assert 0.05 < positive["two"] < 0.95
    low, middle, high = (found[column].to_numpy() for column in ("low", "gap", "high"))
    assert ((low < middle) & (middle < high)).all()
    again = discrimination_gap(x, labels, variant="pairwise").set_index("label")
    assert again.equals(found)


@settings(max_examples=10)
@given(st.integers(0, 99))
def test_csls_gaps_and_pairs_are_those_of_its_formula(seed):
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


def test_separation_counts_labels_nearer_to_another_and_leaves_out_images_of_several():
    x, labels = artists(4, (20, 20, 20), noise=0.3)
    rows = [(str(i), [f"set:{label}"], None, "r", i) for i, label in enumerate(labels)]
    rows += [("none", [], None, "r", 60), ("both", ["set:a", "set:b"], None, "r", 61)]
    images = DescriptorSet(np.concatenate([x, x[:2]]), item_table(rows), {})
    found = separation(images, "set:*")
    assert found.pairs == verification_auc(x, labels)
    assert sorted(found.labels["variant"].unique()) == ["pairwise", "prototype"]
    assert set(found.labels["images"]) == {20}
    assert found.metrics == {"auc": found.pairs.auc, "negative_gaps_pairwise": 0.0, "negative_gaps_prototype": 0.0}
    assert separation(images, "set:*", Csls(5)).pairs == verification_auc(x, labels, csls=5)
    confused = DescriptorSet(images.descriptors, images.items.assign(tags=list(reversed(images.items["tags"]))), {})
    assert separation(confused, "set:*").metrics["negative_gaps_pairwise"] > 0


def test_a_label_of_one_image_has_no_gap():
    x, labels = artists(0, (1, 4))
    found = discrimination_gap(x, labels).set_index("label")
    assert found.loc["a"].isna().tolist() == [False, True, False, False, True, True, True, True]
    assert found.loc["b"].notna().all()


@settings(max_examples=15)
@given(st.integers(0, 99), st.sampled_from([0.1, 0.6, 3.0]))
def test_the_auc_is_the_share_of_pairs_of_pairs_in_the_right_order(seed, noise):
    x, labels = artists(seed, noise=noise)
    x = np.round(x * 4) / 4  # so that there are ties
    pairs = [(float(x[i] @ x[j]), labels[i] == labels[j]) for i, j in combinations(range(len(x)), 2)]
    same, different = ([s for s, alike in pairs if alike == kind] for kind in (True, False))
    wins = np.mean([(a > b) + (a == b) / 2 for a in same for b in different])
    found = verification_auc(x, labels)
    assert found == (pytest.approx(wins), len(same), len(different), True)


def test_a_sample_of_pairs_is_near_all_of_them_and_says_so():
    x, labels = artists(3, (30, 50, 80, 2, 1))
    whole, sampled = verification_auc(x, labels), verification_auc(x, labels, pairs=8000)
    assert (sampled.same, sampled.different, sampled.exact) == (4000, 4000, False)
    assert sampled.auc == pytest.approx(whole.auc, abs=0.03)
    profiles = [similarity_profile(x, labels, pairs=pairs) for pairs in (10**6, 8000)]
    np.testing.assert_allclose(profiles[0].same, profiles[1].same, atol=0.06)
    np.testing.assert_allclose(profiles[0].different, profiles[1].different, atol=0.06)
    assert [profile.exact for profile in profiles] == [True, False]


def test_the_profile_holds_quantiles_of_either_kind():
    x, labels = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 1]], list("aabbb")
    profile = similarity_profile(x, labels, levels=(0.0, 0.5, 1.0))
    assert profile.same.tolist() == [1, 1, 1]
    assert profile.different.tolist() == [0, 0, 0]


def test_labels_that_cannot_be_told_apart_are_refused():
    x = np.eye(3, dtype=np.float32)
    with pytest.raises(StylesimError, match="two or more"):
        discrimination_gap(x, list("aaa"))
    with pytest.raises(StylesimError, match="No two images have the same label"):
        verification_auc(x, list("abc"))
    with pytest.raises(StylesimError, match="one each"):
        verification_auc(x, list("ab"))
    with pytest.raises(StylesimError, match="'prototype' or 'pairwise'"):
        discrimination_gap(x, list("aab"), variant="median")  # type: ignore[arg-type]
