"""Attribute a gallery's own works, each left out of the gallery in turn, alone and with its whole label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from stylesim.core.progress import progress
from stylesim.scoring.attribution.label_evidence import Evidence, label_scores, work_similarities
from stylesim.scoring.attribution.label_whitening import fit_label_whitening, folds
from stylesim.scoring.attribution.labelled_gallery import LabelledGallery, Neighbourhoods, choose_works

BLOCK_NUMBERS = 1 << 23
"""Largest number of similarities of images and works that are in memory at once."""


@dataclass(frozen=True)
class LeaveOneOut:
    """The attributions of works of a gallery, each left out in turn; one entry per work.

    Values that do not exist are NaN: if a work is the only one of its labels, no label remains that would be right.
    """

    work: Int[np.ndarray, " m"]
    """Row of the gallery."""
    label: Int[np.ndarray, " m"]
    """The work's label (the first of them)."""
    best: Int[np.ndarray, " m"]
    """The best label, with the work itself left out."""
    top: Float[np.ndarray, " m"]
    """The score of that label."""
    margin: Float[np.ndarray, " m"]
    """That score minus the second best label's."""
    correct: Float[np.ndarray, " m"]
    """1 if the best label is one of the work's, else 0."""
    own_gap: Float[np.ndarray, " m"]
    """Score of the best label minus that of the work's own best label; 0 if correct."""
    own_works: Int[np.ndarray, " m"]
    """Works of the own label that were compared."""
    known_top: Float[np.ndarray, " m"]
    """Score of the best label with only the work itself left out, so that it can be compared with `foreign_top`."""
    foreign_top: Float[np.ndarray, " m"]
    """Score of the best label, with all works of the work's own labels left out: as if the gallery did not have its
    labels."""

    @property
    def closed(self) -> Bool[np.ndarray, " m"]:
        """Which works have another work with one of their labels."""
        return ~np.isnan(self.correct)


def leave_one_out(
    gallery: LabelledGallery, evidence: Evidence, *, distinct_content: bool, works: int, seed: int
) -> LeaveOneOut:
    """Attribute works of the gallery to its labels as if they were not in it.

    The neighbourhoods of CSLS are those of a gallery without the left-out works. A label that loses a work has fewer
    near works than the others, which matters if it has few, so in the comparison with its own label each other label
    loses a random work too. A whitening is fitted once for each of a few folds of the gallery, without the works of the
    fold.

    Args:
        gallery: The works.
        evidence: How the score is computed.
        distinct_content: Whether works that show the same content as the image are left out too.
        works: Largest number of works that are attributed; they are chosen evenly over the labels.
        seed: Seed of the choice.
    """
    chosen = choose_works(gallery, works, np.random.default_rng(seed))
    chosen = chosen[np.argsort(_first_labels(gallery, chosen), kind="stable")]
    done: list[np.ndarray] = []
    columns: dict[str, list[np.ndarray]] = {}
    with progress("attributing the gallery's own works", len(chosen), unit="works") as advance:
        for space, rows in _spaces(gallery, evidence, chosen, seed):
            for part in _blocks(rows, len(gallery.vectors)):
                for name, values in _attribute_block(space, evidence, part, distinct_content, seed).items():
                    columns.setdefault(name, []).append(values)
                done.append(part)
                advance(len(part))
    work = np.concatenate(done)
    label = _first_labels(gallery, work)
    order = np.argsort(label, kind="stable")
    values = {name: np.concatenate(parts)[order] for name, parts in columns.items()}
    return LeaveOneOut(work[order], label[order], **values)


def _first_labels(gallery: LabelledGallery, works: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    return gallery.has_label[works].argmax(axis=1)


def _spaces(
    gallery: LabelledGallery, evidence: Evidence, chosen: Int[np.ndarray, " m"], seed: int
) -> Iterator[tuple[LabelledGallery, Int[np.ndarray, " f"]]]:
    """Yield the chosen works in parts, with the gallery in a space that was fitted without them."""
    if evidence.measure != "csls_whitened":
        yield gallery, chosen
        return
    for fold in folds(gallery, seed):
        rows = chosen[np.isin(chosen, fold)]
        if len(rows):
            yield gallery.transformed(fit_label_whitening(gallery, evidence.shrinkage, fold)), rows


def _blocks(rows: Int[np.ndarray, " m"], width: int) -> Iterator[Int[np.ndarray, " b"]]:
    size = max(1, BLOCK_NUMBERS // width)
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _attribute_block(
    gallery: LabelledGallery,
    evidence: Evidence,
    rows: Int[np.ndarray, " b"],
    distinct_content: bool,
    seed: int,
) -> dict[str, np.ndarray]:
    cosines = gallery.vectors[rows] @ gallery.vectors.T
    allowed = np.ones_like(cosines, dtype=bool)
    allowed[np.arange(len(rows)), rows] = False
    if distinct_content:
        allowed &= ~gallery.same_content([gallery.contents[row] for row in rows])
    own = gallery.has_label[rows]
    foreign = allowed & ~(own.astype(np.float32) @ gallery.has_label.T.astype(np.float32) > 0)
    # A draw for each work, so that it does not depend on the block.
    draws = np.stack([np.random.default_rng([seed, int(row)]).random(len(gallery.vectors)) for row in rows])
    scores, compared = _scores(gallery, evidence, cosines, allowed, drop_one_of_each(gallery, allowed, own, draws))
    has_own = (own & (compared > 0)).any(axis=1)
    ranked = np.sort(scores, axis=1)
    own_best = np.where(own, scores, -np.inf).max(axis=1)
    with np.errstate(invalid="ignore"):  # -inf minus -inf where nothing can be compared
        margin, own_gap = ranked[:, -1] - ranked[:, -2], ranked[:, -1] - own_best
    known_top = _scores(gallery, evidence, cosines, allowed)[0].max(axis=1)
    foreign_top = _scores(gallery, evidence, cosines, foreign)[0].max(axis=1)
    return {
        "best": scores.argmax(axis=1),
        "top": np.where(has_own, ranked[:, -1], np.nan),
        "margin": np.where(has_own & np.isfinite(margin), margin, np.nan),
        "correct": np.where(has_own, own[np.arange(len(rows)), scores.argmax(axis=1)], np.nan),
        "own_gap": np.where(has_own, own_gap, np.nan),
        "own_works": np.where(own, compared, 0).max(axis=1),
        "known_top": np.where(has_own, known_top, np.nan),
        "foreign_top": np.where(np.isfinite(foreign_top), foreign_top, np.nan),
    }


def _scores(
    gallery: LabelledGallery,
    evidence: Evidence,
    cosines: Float[np.ndarray, "b n"],
    allowed: Bool[np.ndarray, "b n"],
    kept: Bool[np.ndarray, "b n"] | None = None,
) -> tuple[Float[np.ndarray, "b l"], Int[np.ndarray, "b l"]]:
    r_works = None if evidence.measure == "cosine" else _r_works(evidence.neighbourhoods(gallery), allowed)
    similarities = work_similarities(cosines, allowed, evidence.measure, gallery.k, r_works)
    if kept is not None:
        similarities = np.where(kept, similarities, -np.inf)
    scores = label_scores(similarities, gallery, evidence.nearest_works)
    return scores.of(evidence.pool), scores.works


def drop_one_of_each(
    gallery: LabelledGallery,
    allowed: Bool[np.ndarray, "b n"],
    own: Bool[np.ndarray, "b l"],
    draws: Float[np.ndarray, "b n"],
) -> Bool[np.ndarray, "b n"]:
    """Return the allowed works without one of each label that is not the image's own and has two or more.

    The one with the largest of the random numbers `draws`, which are in [0, 1), is left out.
    """
    kept = allowed.copy()
    for label, part in enumerate(gallery.columns_by_label):
        works = gallery.works[part]
        rows = np.flatnonzero(~own[:, label] & (allowed[:, works].sum(axis=1) > 1))
        cells = np.ix_(rows, works)
        kept[rows, works[np.where(allowed[cells], draws[cells], -1).argmax(axis=1)]] = False
    return kept


def _r_works(neighbourhoods: Neighbourhoods, allowed: Bool[np.ndarray, "b n"]) -> Float[np.ndarray, "b n"]:
    """Return r(w) of the works without those that each image must not be compared with."""
    rows: list[np.ndarray] = []
    for image, row in enumerate(allowed):
        same = image > 0 and np.array_equal(row, allowed[image - 1])  # works of one label that are left out together
        rows.append(rows[-1] if same else neighbourhoods.means_without(np.flatnonzero(~row)))
    return np.stack(rows)
