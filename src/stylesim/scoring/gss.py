"""Style scores as pure functions of descriptors.

Descriptors are L2-normalised rows: g of a generated image, r of a work that it is to resemble. ḡ and r̄ are the means
over the two sets, r̄ being the prototype of the works; a hat divides by the length (r̂ = r̄ / |r̄|).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stylesim.retrieval.exact_search import search

SAMPLE = 1_000_000
"""Similarities of works to the prototypes of other labels that a yardstick holds at most."""


def mean_scores(generated: Any, reference: Any) -> dict[str, Any]:
    """General Style Similarity (GSS; the paper's section 6) read in three ways, from ḡ and r̄: `[d]`, numpy or torch.

    - `gss` = <ḡ, r̄>. The inner product is linear: this *is* the mean of <g, r̄> over the generations, and the mean of
      <g, r> over all pairs.
    - `gss_unit_prototype` = <ḡ, r̂>: the mean cosine of a generation with the prototype. It no longer falls where the
      works differ among themselves.
    - `gss_renormalised` = <ĝ, r̂>: the cosine of the two means. It falls for the variety of neither set, only where
      they lie in different directions.
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
) -> dict[str, Float[np.ndarray, " n"]]:
    """A value for each generation, of which the means are `mean_scores` and `csls`: what an interval is drawn from.

    - `gss` is <g, r̄>, and `gss_unit_prototype` <g, r̂>.
    - `gss_renormalised` is no mean over images; its values are its linearisation at ḡ,
      θ + (<g, r̂> - θ <g, ĝ>) / |ḡ| with θ = <ĝ, r̂>, whose mean is θ itself.
    - `csls` is the mean over the works of 2 <g, r> - near(g) - near(r), from
      `neighbourhood_similarities`. At most 0 where the works are the whole set; use it to compare labels.
    """
    ours, works = (side.mean(0, dtype=np.float64) for side in (generated, reference))
    length, cosine = np.linalg.norm(ours), mean_scores(ours, works)["gss_renormalised"]
    to_works = _products(generated, works)
    to_unit = to_works / np.linalg.norm(works)
    return {
        "gss": to_works,
        "gss_unit_prototype": to_unit,
        "gss_renormalised": cosine + (to_unit - cosine * _products(generated, ours / length)) / length,
        "csls": 2 * to_works - near_generated - near_reference.mean(),
    }


def neighbourhood_similarities(
    generated: Float[np.ndarray, "n d"], reference: Float[np.ndarray, "m d"], k: int = 10
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """How crowded it is around each image: its mean similarity to the k nearest of the other side, for either side.

    They are what CSLS (Conneau et al. 2018) subtracts, csls(g, r) = 2 <g, r> - near(g) - near(r), so that an image
    which is near to everything is near to nothing in particular. Searched exactly, in bounded memory; a side with
    fewer than k images counts with all of them.
    """
    near_reference = search(generated, reference, min(k, len(reference))).similarities
    near_generated = search(reference, generated, min(k, len(generated))).similarities
    return near_reference.double().mean(1).numpy(), near_generated.double().mean(1).numpy()


class ReferenceSimilarities(NamedTuple):
    """How much works of one corpus resemble each other, by the measure that `gss` takes of a generation."""

    same: Float[np.ndarray, " s"]
    """<r, r̄ of the other works of its label> for each work and label of it: a work is no witness for itself."""
    different: Float[np.ndarray, " t"]
    """<r, r̄ of another label> for each work and each label that it does not have."""
    others: Float[np.ndarray, " m"]
    """<r, r̄ of all other works> for each work, whatever its label."""


def reference_similarities(
    reference: Float[np.ndarray, "m d"], labels: Mapping[str, Int[np.ndarray, " w"]]
) -> ReferenceSimilarities:
    """The corpus's own similarities; `labels` gives the rows of each. Empty is what a corpus cannot tell.

    A label of one work has nothing to say about `same`. Where `different` would have more than SAMPLE values, evenly
    spaced works stand for all.
    """
    if not labels:
        return ReferenceSimilarities(np.empty(0), np.empty(0), leave_one_out_similarities(reference))
    same = np.concatenate([leave_one_out_similarities(reference[rows]) for rows in labels.values()])
    prototypes = np.array([reference[rows].mean(0, dtype=np.float64) for rows in labels.values()])
    stranger = np.ones((len(reference), len(labels)), dtype=bool)
    for label, rows in enumerate(labels.values()):
        stranger[rows, label] = False
    some = slice(None, None, -(-stranger.size // SAMPLE))
    different = (reference[some] @ prototypes.T.astype(reference.dtype))[stranger[some]]
    return ReferenceSimilarities(same, different.astype(np.float64), leave_one_out_similarities(reference))


def leave_one_out_similarities(works: Float[np.ndarray, "w d"]) -> Float[np.ndarray, " w"]:
    """<r, mean of the others> for each work, none for a single one; their mean is that of all pairs of two works."""
    if len(works) < 2:
        return np.empty(0)
    itself = np.einsum("wd,wd->w", works, works)
    return (_products(works, works.sum(0, dtype=np.float64)) - itself) / (len(works) - 1)


def gap_to_best_other(similarities: Float[np.ndarray, " l"], own: int) -> tuple[float, int | None]:
    """Own label's similarity minus the best other label's (the gap of CSD+, arXiv 2605.09030), and which that is.

    Negative where the generations resemble another label's works more. NaN and None where there is no other.
    """
    if len(similarities) < 2:
        return float("nan"), None
    others = np.where(np.arange(len(similarities)) == own, -np.inf, similarities)
    best = int(others.argmax())
    return float(similarities[own] - similarities[best]), best


def _products(rows: Float[np.ndarray, "n d"], vector: Float[np.ndarray, " d"]) -> Float[np.ndarray, " n"]:
    """Inner products in the precision of the rows, so that no float64 copy of them is made."""
    return (rows @ vector.astype(rows.dtype)).astype(np.float64)
