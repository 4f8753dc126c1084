from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylesim.scoring.ranking.diversity import diversity, vendi_score


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_vendi_counts_orthogonal_images() -> None:
    assert vendi_score(np.eye(5)) == pytest.approx(5)
    assert vendi_score(np.repeat(np.eye(5), 3, axis=0)) == pytest.approx(5)
    assert vendi_score(np.ones((4, 1))) == pytest.approx(1)


@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 99))
def test_vendi_is_that_of_the_kernel(n: int, d: int, seed: int) -> None:
    x = unit(np.random.default_rng(seed).standard_normal((n, d)))
    values = np.linalg.eigvalsh(x @ x.T / n).clip(1e-300)
    assert vendi_score(x) == pytest.approx(np.exp(-(values * np.log(values)).sum()), rel=1e-6)


def test_distance_is_the_mean_over_pairs_of_a_label() -> None:
    x = unit(np.random.default_rng(1).standard_normal((6, 4)))
    pairs = [1 - x[i] @ x[j] for i in range(6) for j in range(i)]
    assert diversity(x, [np.arange(6)], vendi_images=6).distance == pytest.approx(np.mean(pairs))
