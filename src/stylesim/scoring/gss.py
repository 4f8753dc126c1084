"""General Style Similarity (GSS) and related scores, as pure functions of descriptors.

Descriptors are unit vectors: g belongs to a generated image, r to a reference work (for short: a work). ḡ and r̄ are the
means over the two sets, and r̄ is called the prototype of the works. A hat means normalised to unit length
(r̂ = r̄ / |r̄|).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from stylesim.retrieval.exact_search import search
from stylesim.retrieval.groups import Groups

MAX_DIFFERENT = 1_000_000
"""The most similarities of works to prototypes of other labels that `reference_similarities` returns."""


NO_COPIES: Int[np.ndarray, "0 2"] = np.empty((0, 2), dtype=np.int64)
"""The rows of no image that stands on both sides."""


def mean_scores(generated: Any, reference: Any) -> dict[str, Any]:
    """Compute General Style Similarity (CSD, section 6) in three variants.

    - `gss` = <ḡ, r̄>: equal to the mean of <g, r̄> over the generated images, and to the mean of <g, r> over all pairs.
    - `gss_unit_prototype` = <ḡ, r̂>: the mean cosine of a generated image and the prototype. Unlike `gss`, it is not
      lower if the works differ from each other.
    - `gss_renormalised` = <ĝ, r̂>: the cosine of the two means. It does not depend on how varied either set is, only on
      the directions of the means.

    Args:
        generated: ḡ, `[d]`, numpy or torch.
        reference: r̄, `[d]`, numpy or torch.

    Returns:
        The three scores by name, as scalars of the type of the inputs.
    """
    product, lengths = generated @ reference, ((generated @ generated) ** 0.5, (reference @ reference) ** 0.5)
    return {
        "gss": product,
        "gss_unit_prototype": product / lengths[1],
        "gss_renormalised": product / (lengths[0] * lengths[1]),
    }


def image_scores(
    generated: Float[np.ndarray, "n d"],
    reference: Float[np.ndarray, "m d"],
    near_generated: Float[np.ndarray, " n"],
    near_reference: Float[np.ndarray, " m"],
    copies: Int[np.ndarray, "c 2"] = NO_COPIES,
) -> dict[str, Float[np.ndarray, " n"]]:
    """Compute one value of each score per generated image, so that intervals can be bootstrapped over images.

    The means of these values are the scores of `mean_scores`, and `csls`.

    - `gss` is <g, r̄> and `gss_unit_prototype` is <g, r̂>.
    - `gss_renormalised` is not a mean over images, so its values are those of its linearisation at ḡ,
      θ + (<g, r̂> - θ <g, ĝ>) / |ḡ| with θ = <ĝ, r̂>, whose mean is θ.
    - `csls` is the mean over the works of 2 <g, r> - near(g) - near(r) (Conneau et al. 2018). It is never above 0 if
      all works are compared; its purpose is to compare labels.

    Args:
        generated: Descriptors of the generated images.
        reference: Descriptors of the works.
        near_generated: near(g) for each generated image, from `neighbourhood_similarities`.
        near_reference: near(r) for each work, from `neighbourhood_similarities`.
        copies: Rows of generated images and of works that are the same image. r̄ and near(r) of such a generated image
            are means over the other works, and θ is the mean of <g, r̂> / |ḡ|. Its values are NaN if there is no other.

    Returns:
        The values by the name of the score, float64.
    """
    mean_g, mean_r = (side.mean(0, dtype=np.float64) for side in (generated, reference))
    length, count = np.linalg.norm(mean_g), len(reference)
    to_prototype = _products(generated, mean_r)
    prototype_length = np.full(len(generated), np.linalg.norm(mean_r))
    near_prototype = np.full(len(generated), near_reference.mean())
    rows, group = np.unique(copies[:, 0], return_inverse=True)
    if len(rows):
        own = np.zeros((len(rows), generated.shape[1]))
        np.add.at(own, group, reference[copies[:, 1]])
        others = count - np.bincount(group).astype(float)
        others[others == 0] = np.nan
        to_prototype[rows] = (to_prototype[rows] * count - np.vecdot(generated[rows], own)) / others
        prototype_length[rows] = np.linalg.norm(mean_r * count - own, axis=1) / others
        near_own = np.bincount(group, near_reference[copies[:, 1]])
        near_prototype[rows] = (near_reference.sum() - near_own) / others
    to_unit_prototype = to_prototype / prototype_length
    cosine = mean_scores(mean_g, mean_r)["gss_renormalised"]
    if len(rows):
        scored = to_unit_prototype[~np.isnan(to_unit_prototype)]
        cosine = scored.mean() / length if len(scored) else np.nan
    to_own_mean = _products(generated, mean_g / length)
    return {
        "gss": to_prototype,
        "gss_unit_prototype": to_unit_prototype,
        "gss_renormalised": cosine + (to_unit_prototype - cosine * to_own_mean) / length,
        "csls": 2 * to_prototype - near_generated - near_prototype,
    }


def neighbourhood_similarities(
    generated: Float[np.ndarray, "n d"],
    reference: Float[np.ndarray, "m d"],
    k: int = 10,
    copies: Int[np.ndarray, "c 2"] = NO_COPIES,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Compute near(x) of CSLS: the mean similarity of each image to its k nearest images on the other side.

    csls(g, r) = 2 <g, r> - near(g) - near(r) (Conneau et al. 2018) lowers the score of an image that is close to
    nearly all others. The search is exact, and its memory is bounded.

    Args:
        generated: Descriptors of the generated images.
        reference: Descriptors of the works.
        k: The number of neighbours. If the other side has fewer images, all of them are used.
        copies: Rows of generated images and of works that are the same image, and so no neighbours.

    Returns:
        The values for the generated images and for the works; NaN for an image without a neighbour.
    """
    groups = copy_groups(copies, len(generated), len(reference))
    sides = [(generated, reference, *groups), (reference, generated, *groups[::-1])]
    of_generated, of_reference = (
        search(a, b, min(k, len(b)), query_groups=a_groups, gallery_groups=b_groups).similarities.double()
        for a, b, a_groups, b_groups in sides
    )
    near = [np.where(np.isfinite(values), values, np.nan) for values in (of_generated.numpy(), of_reference.numpy())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a row without a value
        return np.nanmean(near[0], axis=1), np.nanmean(near[1], axis=1)


def copy_groups(
    copies: Int[np.ndarray, "c 2"], generated: int, reference: int
) -> tuple[Groups, Groups] | tuple[None, None]:
    """Return the generated images and the works as groups of the same image, for `search` to leave out."""
    if not len(copies):
        return None, None
    of_generated, of_reference = torch.full((generated,), -1), torch.full((reference,), -1)
    for row, work in copies.tolist():
        code = next((int(c) for c in (of_generated[row], of_reference[work]) if c >= 0), row)
        of_generated[row] = of_reference[work] = code
    return of_generated, of_reference


class ReferenceSimilarities(NamedTuple):
    """How similar reference works are to each other, measured in the same way as a generated image is by `gss`."""

    same: Float[np.ndarray, " s"]
    """For each work and each of its labels: <r, r̄ of the other works with that label>."""
    different: Float[np.ndarray, " t"]
    """For each work and each label it does not have: <r, r̄ of that label>."""
    others: Float[np.ndarray, " m"]
    """For each work: <r, r̄ of all other works>, whatever their labels."""


def reference_similarities(
    reference: Float[np.ndarray, "m d"], labels: Mapping[str, Int[np.ndarray, " w"]]
) -> ReferenceSimilarities:
    """Compute how similar the works are to each other, as a scale for interpreting a score.

    Args:
        reference: Descriptors of the works.
        labels: The rows of each label.

    Returns:
        The similarities. An array is empty if it cannot be computed (no labels, or one work per label). If `different`
        would have more than MAX_DIFFERENT values, it is computed for evenly spaced works only.
    """
    if not labels:
        return ReferenceSimilarities(np.empty(0), np.empty(0), leave_one_out_similarities(reference))
    same = np.concatenate([leave_one_out_similarities(reference[rows]) for rows in labels.values()])
    prototypes = np.array([reference[rows].mean(0, dtype=np.float64) for rows in labels.values()])
    lacks_label = np.ones((len(reference), len(labels)), dtype=bool)
    for label, rows in enumerate(labels.values()):
        lacks_label[rows, label] = False
    sampled = slice(None, None, -(-lacks_label.size // MAX_DIFFERENT))
    different = (reference[sampled] @ prototypes.T.astype(reference.dtype))[lacks_label[sampled]]
    return ReferenceSimilarities(same, different.astype(np.float64), leave_one_out_similarities(reference))


def leave_one_out_similarities(works: Float[np.ndarray, "w d"]) -> Float[np.ndarray, " w"]:
    """Compute the similarity of each work to the mean of the other works.

    Args:
        works: Descriptors of the works.

    Returns:
        <r, mean of the other works> for each work; empty for a single work. The mean of these values is the mean
        similarity of all pairs of works.
    """
    if len(works) < 2:
        return np.empty(0)
    squares = np.einsum("wd,wd->w", works, works)
    return (_products(works, works.sum(0, dtype=np.float64)) - squares) / (len(works) - 1)


def gap_to_best_other(similarities: Float[np.ndarray, " l"], own: int) -> tuple[float, int | None]:
    """Compute the similarity to the own label minus that to the most similar other label (CSD+, arXiv 2605.09030).

    Args:
        similarities: Similarity of the generated images to the works of each label; NaN where there is none.
        own: Index of their own label.

    Returns:
        The gap, and the index of the most similar other label. The gap is negative if the images are more similar to
        the works of that label. Without another label, the gap is NaN and the index None.
    """
    if len(similarities) < 2:
        return float("nan"), None
    others = np.where((np.arange(len(similarities)) == own) | np.isnan(similarities), -np.inf, similarities)
    best = int(others.argmax())
    if not np.isfinite(others[best]):
        return float("nan"), None
    return float(similarities[own] - similarities[best]), best


def _products(rows: Float[np.ndarray, "n d"], vector: Float[np.ndarray, " d"]) -> Float[np.ndarray, " n"]:
    """Return inner products computed in the precision of the rows, which avoids a float64 copy of them."""
    return (rows @ vector.astype(rows.dtype)).astype(np.float64)
