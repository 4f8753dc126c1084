"""Read-outs: what is done to descriptors, fitted on a named set of them, before they are compared.

Each turns queries and gallery into tables whose inner product is the score, so that `search` finds its exact
neighbours. All of it works in blocks: descriptors may be memory maps larger than memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from stylesim.core.errors import StylesimError
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.exact_search import search
from stylesim.retrieval.pca import fit_pca

Pair = tuple[Float[np.ndarray, "q r"], Float[np.ndarray, "g r"]]
"""Queries and gallery."""


class Readout(Protocol):
    """Called with queries [q d] and gallery [g d], both L2-normalised; returns tables [q r] and [g r].

    The ids are needed where an image may be on both sides, so that it is not its own neighbour.
    """

    def __call__(
        self,
        queries: Float[np.ndarray, "q d"],
        gallery: Float[np.ndarray, "g d"],
        *,
        query_ids: Sequence[str] | None = None,
        gallery_ids: Sequence[str] | None = None,
    ) -> Pair: ...


@dataclass(frozen=True)
class Cosine:
    """Descriptors as they are."""

    def __call__(self, queries: np.ndarray, gallery: np.ndarray, **ids: Sequence[str] | None) -> Pair:
        return queries, gallery


@dataclass(frozen=True)
class Csls:
    """Cross-domain similarity local scaling (Conneau et al. 2018, section 2.3): 2 cos(q, g) - r(q) - r(g).

    r is the mean cosine of an image with its `k` nearest on the other side: an image that is near to
    everything (a hub) loses what it gains everywhere. Scores lie in [-4, 4].
    """

    k: int = 10

    def __call__(
        self,
        queries: np.ndarray,
        gallery: np.ndarray,
        *,
        query_ids: Sequence[str] | None = None,
        gallery_ids: Sequence[str] | None = None,
    ) -> Pair:
        ours = self._closeness(queries, gallery, query_ids, gallery_ids)
        theirs = self._closeness(gallery, queries, gallery_ids, query_ids)
        ones = np.ones_like
        # [2q, -r(q), -1] . [g, 1, r(g)] is the score.
        return (
            np.hstack([2 * np.asarray(queries), -ours, -ones(ours)]),
            np.hstack([np.asarray(gallery), ones(theirs), theirs]),
        )

    def _closeness(
        self, x: np.ndarray, others: np.ndarray, ids: Sequence[str] | None, other_ids: Sequence[str] | None
    ) -> Float[np.ndarray, "n 1"]:
        found = search(x, others, min(self.k, len(others)), query_ids=ids, gallery_ids=other_ids).similarities.numpy()
        there = np.isfinite(found)
        mean = np.where(there, found, 0).sum(axis=1) / there.sum(axis=1).clip(min=1)
        return mean.astype(np.float32)[:, None]


def self_csls(x: Float[np.ndarray, "n d"], k: int) -> Pair:
    """Tables whose inner product is the CSLS of two images; an image is not its own neighbour."""
    ids = [str(row) for row in range(len(x))]
    return Csls(k)(x, x, query_ids=ids, gallery_ids=ids)


@dataclass(frozen=True)
class Whitened:
    """PCA whitening: centred, decorrelated, scaled to unit variance, and brought to unit length again.

    `dim`: axes kept, the strongest first (None: all that vary). `fit`: "gallery", "query", or the folder of a
    DescriptorSet of the same encoder. Raises StylesimError where there are no more images to fit than axes: whitened,
    they would all be equally alike.
    """

    dim: int | None = None
    fit: str = "gallery"

    def __call__(self, queries: np.ndarray, gallery: np.ndarray, **ids: Sequence[str] | None) -> Pair:
        fitted = _fit_set(self.fit, queries, gallery)
        axes = min(self.dim or fitted.shape[1], fitted.shape[1])
        if len(fitted) <= axes:
            raise StylesimError(
                f"Whitening {axes} axes by {len(fitted)} images makes all of these equally alike: set readout.dim to"
                " far fewer than there are images, or readout.fit to a larger set."
            )
        pca = fit_pca(fitted, self.dim)
        return pca.project(queries, whiten=True, unit=True), pca.project(gallery, whiten=True, unit=True)


@dataclass(frozen=True)
class Pca:
    """The strongest `dim` principal components, at unit length; `fit` as in `Whitened`.

    Without `renormalise`, as the published code does it for VGG Gram (with fit="query"): the queries are brought to
    unit length before the fit, the gallery is projected as it is given, and only the gallery is brought to unit length
    afterwards. That tells where an encoder's descriptors are not of unit length.
    """

    dim: int = 1024
    fit: str = "gallery"
    renormalise: bool = True

    def __call__(self, queries: np.ndarray, gallery: np.ndarray, **ids: Sequence[str] | None) -> Pair:
        fitted = _fit_set(self.fit, queries, gallery)
        pca = fit_pca(fitted, self.dim, unit=self.renormalise or self.fit != "gallery")
        ours = pca.project(queries, unit_before=True, unit=self.renormalise)
        return ours, pca.project(gallery, unit_before=self.renormalise, unit=True)


def _fit_set(fit: str, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    if fit in ("gallery", "query"):
        return gallery if fit == "gallery" else queries
    named = DescriptorSet.load(fit).descriptors
    if named.shape[1] != gallery.shape[1]:
        raise StylesimError(
            f"The read-out is fitted on {fit}, whose descriptors have {named.shape[1]} numbers, and not "
            f"{gallery.shape[1]} as these: describe that set with the same encoder."
        )
    return named
