"""Made-up works with their metadata, to fill databases with."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stylesim.retrieval.descriptor_set import DescriptorSet, item_table

DIM = 8
META = {
    "encoder": {"name": "Toy", "weights": "random", "preprocessing": {"size": 32}},
    "encoder_digest": "0123456789abcdef",
    "greyscale": False,
    "flips": False,
}


def unit_vectors(n: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def works(n: int, dim: int = DIM, seed: int = 0) -> DescriptorSet:
    """Made-up works: w/0000, w/0001, ..., with periods (a third unknown), years and tags."""
    rows = [
        (f"w/{i:04d}", [f"artist:{i % 4}", "medium:oil"][: 1 + i % 2], None if i % 2 else "cat", "museum", i)
        for i in range(n)
    ]
    return DescriptorSet(unit_vectors(n, dim, seed), item_table(rows), META)


def facts(n: int) -> pd.DataFrame:
    """Metadata of `works`."""
    return pd.DataFrame(
        {
            "id": [f"w/{i:04d}" for i in range(n)],
            "period": [["1890s", "1900s", None][i % 3] for i in range(n)],
            "year": [1890 + i % 20 for i in range(n)],
            "height": [None if i % 5 == 0 else i / 4 for i in range(n)],
            "public": [i % 2 == 0 for i in range(n)],
        }
    )
