"""Whiten descriptors by how the works of one label differ, so that directions in which each label varies count less."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from stylesim.scoring.attribution.label_evidence import label_scores
from stylesim.scoring.attribution.labelled_gallery import LabelledGallery, choose_works

SHRINKAGES = (0.02, 0.1, 0.3, 0.5, 0.8, 1.0)
FOLDS = 5
TUNING_WORKS = 2000
"""Largest number of works that are attributed to choose the shrinkage, evenly over the labels."""


@dataclass(frozen=True)
class LabelWhitening:
    """A linear map after which the works of one label differ equally in all directions, on average over the labels.

    It is the whitening of linear discriminant analysis (Fisher 1936). The covariance within labels is shrunk towards a
    multiple of the identity, because galleries often have fewer works than descriptors have dimensions.
    """

    mean: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "d d"]
    """Eigenvectors of the covariance within labels, in columns."""
    variances: Float[np.ndarray, " d"]
    """The eigenvalues, divided by their mean."""
    shrinkage: float
    """From 0, the covariance as it is, to 1, the identity: then descriptors are only centred."""

    def __call__(self, vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Return the whitened vectors, normalised to unit length."""
        return self._scale((vectors - self.mean) @ self.axes)

    def at_each_shrinkage(self, vectors: Float[np.ndarray, "n d"]) -> list[Float[np.ndarray, "n d"]]:
        """Return the whitened vectors for each of `SHRINKAGES`, with one projection."""
        projected = (vectors - self.mean) @ self.axes
        return [replace(self, shrinkage=shrinkage)._scale(projected) for shrinkage in SHRINKAGES]

    def _scale(self, projected: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        scaled = projected / np.sqrt((1 - self.shrinkage) * self.variances + self.shrinkage)
        return scaled / np.linalg.norm(scaled, axis=1, keepdims=True).clip(min=1e-12)


def fit_label_whitening(
    gallery: LabelledGallery, shrinkage: float, left_out: Int[np.ndarray, " m"] | None = None
) -> LabelWhitening:
    """Fit a whitening to the works of a gallery, except those that are left out."""
    usable = np.ones(len(gallery.vectors), dtype=bool)
    if left_out is not None:
        usable[left_out] = False
    mean = gallery.vectors[usable].mean(axis=0)
    dim = gallery.vectors.shape[1]
    scatter = np.zeros((dim, dim))
    for part in gallery.columns_by_label:
        works = gallery.works[part]
        vectors = gallery.vectors[works[usable[works]]]
        if len(vectors) > 1:
            residuals = vectors - vectors.mean(axis=0)
            scatter += residuals.T @ residuals
    variances, axes = np.linalg.eigh(scatter)
    variances = variances.clip(min=0)
    average = variances.mean()
    if average > 0:
        variances = variances / average
    else:  # no label has two different works
        shrinkage = 1.0
    return LabelWhitening(mean, axes.astype(np.float32), variances.astype(np.float32), shrinkage)


def folds(gallery: LabelledGallery, seed: int) -> list[Int[np.ndarray, " f"]]:
    """Divide the works into `FOLDS` parts over which the works of each label are spread evenly."""
    rng = np.random.default_rng(seed)
    shuffled = np.concatenate([rng.permutation(gallery.works[part]) for part in gallery.columns_by_label])
    order = np.array(list(dict.fromkeys(shuffled.tolist())))
    return [np.sort(order[fold::FOLDS]) for fold in range(FOLDS)]


def choose_shrinkage(gallery: LabelledGallery, nearest_works: int, seed: int) -> float:
    """Return the shrinkage with which most works are attributed to their own label, by whitenings fitted without them.

    The label is the one with the largest mean cosine of its nearest works. Of equally good values, the largest is
    chosen.

    Args:
        gallery: The works.
        nearest_works: Number of nearest works of a label.
        seed: Seed of the folds.
    """
    right = np.zeros(len(SHRINKAGES))
    chosen = choose_works(gallery, TUNING_WORKS, np.random.default_rng(seed))
    for fold in folds(gallery, seed):
        queries = chosen[np.isin(chosen, fold)]
        whitening = fit_label_whitening(gallery, 0.0, fold)
        for choice, whitened in enumerate(whitening.at_each_shrinkage(gallery.vectors)):
            cosines = whitened[queries] @ whitened.T
            cosines[np.arange(len(queries)), queries] = -np.inf
            best = label_scores(cosines, gallery, nearest_works).nearest.argmax(axis=1)
            right[choice] += gallery.has_label[queries, best].sum()
    return SHRINKAGES[len(right) - 1 - int(right[::-1].argmax())]
