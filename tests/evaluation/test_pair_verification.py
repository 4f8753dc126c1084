from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from clusters import artists
from hypothesis import given, settings
from hypothesis import strategies as st

from stylesim.evaluation.pair_verification import verification_auc


@settings(max_examples=15)
@given(st.integers(0, 99), st.sampled_from([0.1, 0.6, 3.0]))
def test_the_auc_matches_its_definition_with_ties(seed, noise):
    x, labels = artists(seed, noise=noise)
    x = np.round(x * 4) / 4  # creates ties
    pairs = [(float(x[i] @ x[j]), labels[i] == labels[j]) for i, j in combinations(range(len(x)), 2)]
    same, different = ([s for s, alike in pairs if alike == kind] for kind in (True, False))
    wins = np.mean([(a > b) + (a == b) / 2 for a in same for b in different])
    found = verification_auc(x, labels)
    assert found == (pytest.approx(wins), len(same), len(different), True)


def test_a_sample_of_pairs_approximates_all_pairs():
    x, labels = artists(3, (30, 50, 80, 2, 1))
    whole, sampled = verification_auc(x, labels), verification_auc(x, labels, pairs=8000)
    assert (sampled.same, sampled.different, sampled.exact) == (4000, 4000, False)
    assert sampled.auc == pytest.approx(whole.auc, abs=0.03)
