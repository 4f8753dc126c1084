"""Items and descriptors of made-up images."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stylesim.retrieval.descriptor_set import item_table


def rows(start: int, stop: int) -> pd.DataFrame:
    return item_table((f"r/{i}", ["set:a", f"n:{i}"], None if i % 2 else "cat", "r", i) for i in range(start, stop))


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)
