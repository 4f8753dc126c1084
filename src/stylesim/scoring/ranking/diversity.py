"""Measure how varied a set of images is, and recognise a set that repeats itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stylesim.retrieval.exact_search import search
from stylesim.scoring.gss import leave_one_out_similarities
from stylesim.scoring.shared_images import SAME

COLLAPSED = 0.5
"""A set has collapsed if the mean distance of its images is below this share of that of the works, or if this share of
its images stands in it more than once. A convention: it flags sets to look at."""
VENDI_IMAGES = 500
"""Largest number of images that a Vendi score is measured at."""
SUBSETS = 5
"""Number of random subsets that a Vendi score is the mean of."""


class Diversity(NamedTuple):
    """How varied a set is."""

    distance: float
    """1 minus the mean cosine of two images with the same label; NaN for a single image."""
    vendi: float
    """The effective number of different images among `vendi_images`; NaN if the set has fewer."""
    repeats: float
    """Share of the images whose descriptor another image of the set has too."""


def diversity(
    vectors: Float[np.ndarray, "n d"],
    groups: Sequence[Int[np.ndarray, " m"]],
    *,
    vendi_images: int,
    seed: int = 0,
) -> Diversity:
    """Measure how varied a set is.

    Args:
        vectors: Unit vectors.
        groups: The rows of the images of each label; distances are measured within them.
        vendi_images: Number of images of the Vendi score, which grows with it.
        seed: Seed of the subsets.
    """
    distances = [1 - leave_one_out_similarities(vectors[rows]) for rows in groups if len(rows) > 1]
    return Diversity(
        float(np.concatenate(distances).mean()) if distances else float("nan"),
        _vendi_of_subsets(vectors, vendi_images, seed),
        _share_of_repeats(vectors),
    )


def vendi_score(vectors: Float[np.ndarray, "n d"]) -> float:
    """Compute the Vendi score (Friedman and Dieng 2023): the exponential of the entropy of the kernel's eigenvalues.

    Args:
        vectors: Unit vectors; the kernel is their cosine.

    Returns:
        A number from 1 (all images equal) to the smaller of n and d (all orthogonal).
    """
    x = np.asarray(vectors, dtype=np.float64)
    kernel = (x @ x.T if len(x) <= x.shape[1] else x.T @ x) / len(x)  # both have the same eigenvalues other than 0
    eigenvalues = np.linalg.eigvalsh(kernel)
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def has_collapsed(images: Diversity, works: Diversity) -> bool:
    """Return whether a set repeats itself so much, compared with the works, that its score should not be trusted."""
    return bool(images.repeats >= COLLAPSED or images.distance < COLLAPSED * works.distance)


def common_size(sizes: Mapping[str, int], works: int) -> int:
    """Return at how many images the Vendi scores of several sets and of the works are measured."""
    return min([VENDI_IMAGES, *(size for size in [*sizes.values(), works] if size > 1)])


def _vendi_of_subsets(vectors: Float[np.ndarray, "n d"], size: int, seed: int) -> float:
    if len(vectors) < max(size, 2):
        return float("nan")
    if len(vectors) == size:
        return vendi_score(vectors)
    rng = np.random.default_rng(seed)
    return float(np.mean([vendi_score(vectors[rng.permutation(len(vectors))[:size]]) for _ in range(SUBSETS)]))


def _share_of_repeats(vectors: Float[np.ndarray, "n d"]) -> float:
    if len(vectors) < 2:
        return 0.0
    rows = [str(row) for row in range(len(vectors))]
    nearest = search(vectors, vectors, 1, query_ids=rows, gallery_ids=rows).similarities[:, 0].numpy()
    return float((nearest > SAME).mean())
