"""Labelled descriptors in clusters, for tests of how well labels are separated."""

from __future__ import annotations

import numpy as np


def artists(seed: int, sizes: tuple[int, ...] = (5, 4, 7), noise: float = 0.6) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels = [chr(97 + label) for label, size in enumerate(sizes) for _ in range(size)]
    x = np.concatenate([rng.standard_normal(8) + noise * rng.standard_normal((size, 8)) for size in sizes])
    order = rng.permutation(len(x))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return x[order], [labels[i] for i in order]
