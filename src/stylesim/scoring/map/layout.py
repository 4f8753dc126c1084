"""Lay descriptors out in two dimensions, and measure how many neighbourhoods the layout keeps."""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from stylesim.core.errors import DataError

Method = Literal["umap", "tsne"]
MEASURED = 5000
"""Number of images on which layouts and clusters are judged, by all pairs of them."""


class LayoutQuality(NamedTuple):
    """How many neighbourhoods of the descriptors a layout keeps (Venna and Kaski 2001); 1 is all of them."""

    trustworthiness: float
    """Falls when images are neighbours on the map that are not neighbours by their descriptors."""
    continuity: float
    """Falls when neighbours by their descriptors are not neighbours on the map."""


def lay_out(
    x: Float[np.ndarray, "n d"], method: Method = "umap", *, neighbours: int = 15, seed: int = 0
) -> Float[np.ndarray, "n 2"]:
    """Lay unit descriptors out in two dimensions. The same input and seed give the same layout on one machine.

    Args:
        x: Descriptors of unit length, so that the order of their distances is that of their cosines.
        method: UMAP (McInnes et al. 2018) or t-SNE (van der Maaten and Hinton 2008).
        neighbours: UMAP's number of neighbours and t-SNE's perplexity; less if there are few images.
        seed: Seed of the layout.

    Returns:
        Positions, float32. Neither their axes nor long distances between them have a meaning.

    Raises:
        DataError: If there are fewer than five images.
    """
    if len(x) < 5:
        raise DataError(f"A map needs at least 5 images, got {len(x)}.")
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(neighbours, (len(x) - 1) / 3)
        return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(x).astype(np.float32)
    from umap import UMAP

    # The spectral start needs more images than UMAP's default can be sure of.
    start = "spectral" if len(x) > 2 * neighbours else "random"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_jobs value")  # a seed allows one thread only
        mapper = UMAP(n_neighbors=min(neighbours, len(x) - 1), metric="cosine", init=start, random_state=seed)
        return np.asarray(mapper.fit_transform(x), dtype=np.float32)


def layout_quality(
    x: Float[np.ndarray, "n d"], layout: Float[np.ndarray, "n 2"], *, neighbours: int = 15, seed: int = 0
) -> LayoutQuality:
    """Measure trustworthiness and continuity, on `MEASURED` images at random if there are more.

    Args:
        x: Descriptors of unit length.
        layout: Their positions.
        neighbours: The size of a neighbourhood; less than half of the images.
        seed: Seed of the choice of images.
    """
    from sklearn.manifold import trustworthiness

    if len(x) > MEASURED:
        rows = np.sort(np.random.default_rng(seed).choice(len(x), MEASURED, replace=False))
        x, layout = x[rows], layout[rows]
    k = min(neighbours, (len(x) - 1) // 2)
    return LayoutQuality(
        float(trustworthiness(x, layout, n_neighbors=k)), float(trustworthiness(layout, x, n_neighbors=k))
    )
