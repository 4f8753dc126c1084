"""Read-outs: transformations that are applied to descriptors before they are compared.

Each read-out turns queries and gallery into arrays whose inner product is the score, so that `search` finds the exact
neighbours under that score. Fitting and projection work in blocks: descriptors may be memory maps larger than memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from stylesim.core.errors import ConfigError, DataError
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.exact_search import search
from stylesim.retrieval.pca import fit_pca

QueryAndGallery = tuple[Float[np.ndarray, "q r"], Float[np.ndarray, "g r"]]
"""Transformed queries and gallery."""


class Readout(Protocol):
    """A callable from L2-normalised queries `[q d]` and gallery `[g d]` to arrays `[q r]` and `[g r]`.

    The score of a query and a gallery image is the inner product of their rows. The ids are needed only if an image may
    be on both sides, so that it does not count as its own neighbour.
    """

    def __call__(
        self,
        queries: Float[np.ndarray, "q d"],
        gallery: Float[np.ndarray, "g d"],
        *,
        query_ids: Sequence[str] | None = None,
        gallery_ids: Sequence[str] | None = None,
    ) -> QueryAndGallery:
        """Return the transformed queries and gallery."""
        ...


@dataclass(frozen=True)
class Cosine:
    """Leave descriptors unchanged: the score of two unit vectors is their cosine."""

    def __call__(
        self,
        queries: Float[np.ndarray, "q d"],
        gallery: Float[np.ndarray, "g d"],
        **ids: Sequence[str] | None,
    ) -> QueryAndGallery:
        """Return queries and gallery as they are."""
        return queries, gallery


@dataclass(frozen=True)
class Csls:
    """Cross-domain similarity local scaling: 2 cos(q, g) - near(q) - near(g) (Conneau et al. 2018, section 2.3).

    near(x), the paper's r(x), is the mean cosine of x and its `k` nearest images on the other side. It is large for a
    hub, an image that is close to nearly all others, and lowers every score of it. Scores are in [-4, 4].

    Args:
        k: The number of neighbours that near(x) averages over.
    """

    k: int = 10

    def __call__(
        self,
        queries: Float[np.ndarray, "q d"],
        gallery: Float[np.ndarray, "g d"],
        *,
        query_ids: Sequence[str] | None = None,
        gallery_ids: Sequence[str] | None = None,
    ) -> QueryAndGallery:
        """Return queries and gallery with two further columns, which hold the local scaling."""
        near_query = self._mean_neighbour_similarity(queries, gallery, query_ids, gallery_ids)
        near_gallery = self._mean_neighbour_similarity(gallery, queries, gallery_ids, query_ids)
        # The score is the inner product [2q, -near(q), -1] . [g, 1, near(g)].
        return (
            np.hstack([2 * np.asarray(queries), -near_query, -np.ones_like(near_query)]),
            np.hstack([np.asarray(gallery), np.ones_like(near_gallery), near_gallery]),
        )

    def _mean_neighbour_similarity(
        self, x: np.ndarray, others: np.ndarray, ids: Sequence[str] | None, other_ids: Sequence[str] | None
    ) -> Float[np.ndarray, "n 1"]:
        neighbours = search(x, others, min(self.k, len(others)), query_ids=ids, gallery_ids=other_ids)
        similarities = neighbours.similarities.numpy()
        finite = np.isfinite(similarities)
        mean = np.where(finite, similarities, 0).sum(axis=1) / finite.sum(axis=1).clip(min=1)
        return mean.astype(np.float32)[:, None]


def csls_within(x: Float[np.ndarray, "n d"], k: int) -> QueryAndGallery:
    """Apply CSLS with `k` neighbours to a set and itself. No image is its own neighbour.

    Returns:
        Two arrays of one row per image; the inner product of a row of each is the score of two images.
    """
    ids = [str(row) for row in range(len(x))]
    return Csls(k)(x, x, query_ids=ids, gallery_ids=ids)


@dataclass(frozen=True)
class Whitened:
    """PCA whitening: centre, decorrelate, scale to unit variance, then normalise to unit length.

    Args:
        dim: The number of axes to keep, the strongest first. None keeps all axes that have variance.
        fit: What the axes are fitted on: "gallery", "query", or the folder of a DescriptorSet of the same encoder.

    Raises:
        ConfigError: When called, if there are not more images to fit on than axes. After whitening, all of them would
            be equally similar to each other.
    """

    dim: int | None = None
    fit: str = "gallery"

    def __call__(
        self, queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"], **ids: Sequence[str] | None
    ) -> QueryAndGallery:
        """Return the whitened queries and gallery."""
        fitted = _fit_set(self.fit, queries, gallery)
        axes = min(self.dim or fitted.shape[1], fitted.shape[1])
        if len(fitted) <= axes:
            raise ConfigError(
                f"Whitening with {axes} axes fitted on {len(fitted)} images would make all of them equally similar. Set"
                " readout.dim to far fewer axes than there are images, or readout.fit to a larger descriptor set."
            )
        pca = fit_pca(fitted, self.dim)
        return pca.project(queries, whiten=True, unit=True), pca.project(gallery, whiten=True, unit=True)


@dataclass(frozen=True)
class Pca:
    """Projection on the strongest principal components, normalised to unit length.

    `renormalise=False` with `fit="query"` reproduces what the published CSD code does for VGG Gram: queries are
    normalised before the fit, the gallery is projected without normalisation, and only the gallery is normalised
    afterwards. It differs from the default for encoders whose descriptors do not have unit length.

    Args:
        dim: The number of components.
        fit: What the components are fitted on (see `Whitened`).
        renormalise: Normalise both sides before and after the projection.
    """

    dim: int = 1024
    fit: str = "gallery"
    renormalise: bool = True

    def __call__(
        self, queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"], **ids: Sequence[str] | None
    ) -> QueryAndGallery:
        """Return the projected queries and gallery."""
        fitted = _fit_set(self.fit, queries, gallery)
        pca = fit_pca(fitted, self.dim, unit=self.renormalise or self.fit != "gallery")
        projected_queries = pca.project(queries, unit_before=True, unit=self.renormalise)
        return projected_queries, pca.project(gallery, unit_before=self.renormalise, unit=True)


def _fit_set(fit: str, queries: np.ndarray, gallery: np.ndarray) -> Float[np.ndarray, "n d"]:
    """Return the descriptors that `fit` names."""
    if fit in ("gallery", "query"):
        return gallery if fit == "gallery" else queries
    descriptors = DescriptorSet.load(fit).descriptors
    if descriptors.shape[1] != gallery.shape[1]:
        raise DataError(
            f"readout.fit={fit} has descriptors of {descriptors.shape[1]} dimensions, but the descriptors to transform"
            f" have {gallery.shape[1]}. Embed that set with the same encoder."
        )
    return descriptors
