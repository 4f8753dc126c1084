"""Descriptor sets with known styles: each label has a direction, and its works scatter about it."""

from __future__ import annotations

import numpy as np

from stylesim.retrieval.descriptor_set import DescriptorSet, item_table

DIM = 24


def directions(labels: int, seed: int = 0) -> np.ndarray:
    """One unit vector per label."""
    x = np.random.default_rng(seed).standard_normal((labels, DIM))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def works(
    centres: np.ndarray, sizes: int | list[int], *, spread: float = 0.15, seed: int = 1, name: str = "g", first: int = 0
) -> DescriptorSet:
    """A set in which label `a<i>` has `sizes[i]` works about `centres[i]`; ids are `<name>/<label>/<number>`."""
    rng, rows, items = np.random.default_rng(seed), [], []
    for label, centre in enumerate(centres, first):
        for number in range(sizes if isinstance(sizes, int) else sizes[label - first]):
            rows.append(centre + spread * rng.standard_normal(DIM))
            items.append((f"{name}/a{label}/{number}", [f"artist:a{label}"], f"c{number}", "", len(items)))
    return DescriptorSet(np.array(rows, dtype=np.float32), item_table(items), {"encoder": {"name": "made up"}})


def truth(images: DescriptorSet) -> np.ndarray:
    return np.array([tags[0] for tags in images.items["tags"]])
