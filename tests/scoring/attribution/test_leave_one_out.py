from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made_up_styles import directions, works

from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.attribution.label_evidence import Evidence, Measure
from stylesim.scoring.attribution.label_whitening import fit_label_whitening, folds
from stylesim.scoring.attribution.labelled_gallery import LabelledGallery, choose_works, group_by_label
from stylesim.scoring.attribution.leave_one_out import LeaveOneOut, drop_one_of_each, leave_one_out

SIZES = [9, 3, 1, 14, 5, 6]
SHRINKAGE = 0.3


@pytest.fixture(scope="module")
def gallery() -> DescriptorSet:
    """Unequal labels, two of which are near to each other, so that lists of neighbours run out."""
    centres = directions(len(SIZES))
    centres[1] = centres[0] + 0.02
    return works(centres, SIZES, spread=0.2)


def run(gallery: DescriptorSet, measure: Measure, *, distinct_content: bool = False, k: int = 2) -> LeaveOneOut:
    grouped = group_by_label(gallery, "artist:*", k)
    return leave_one_out(
        grouped, Evidence(measure, shrinkage=SHRINKAGE), distinct_content=distinct_content, works=1000, seed=0
    )


def space_without(gallery: DescriptorSet, work: int) -> np.ndarray:
    """Unit vectors, whitened by the works that are not in the fold of one."""
    grouped = group_by_label(gallery, "artist:*", 2)
    fold = next(fold for fold in folds(grouped, 0) if work in fold)
    return fit_label_whitening(grouped, SHRINKAGE, fold)(grouped.vectors)


def best_of_reduced(gallery: DescriptorSet, work: int, left_out: np.ndarray, measure: Measure, k: int) -> float:
    """The best score of a work in a gallery from which works were really taken out, by plain loops."""
    x = gallery.descriptors / np.linalg.norm(gallery.descriptors, axis=1, keepdims=True)
    if measure == "csls_whitened":
        x = space_without(gallery, work)
    labels = np.array([tags[0] for tags in gallery.items["tags"]])
    rest = np.flatnonzero(~left_out)

    def near(row: Any, among: np.ndarray) -> float:
        values = np.sort(x[among] @ x[row])[::-1][:k]
        return float(values.mean()) if len(values) else 0.0

    values = {}
    for other in rest:
        similarity = float(x[work] @ x[other])
        if measure != "cosine":
            among = rest[(rest != other) & ((labels[rest] != labels[other]) | (measure != "csls_label_aware"))]
            similarity = 2 * similarity - near(work, rest) - near(other, among)
        values[other] = similarity
    by_label = {
        name: sorted((values[o] for o in rest if labels[o] == name), reverse=True) for name in set(labels[rest])
    }
    average = np.mean([np.mean(of_label) for of_label in by_label.values()])
    return max(float(sum(v[:3]) + average * max(0, 3 - len(v))) / 3 for v in by_label.values())


@pytest.mark.parametrize("measure", ["cosine", "csls", "csls_label_aware", "csls_whitened"])
@pytest.mark.parametrize("distinct_content", [False, True])
def test_leaving_out_equals_a_gallery_without_these_works(
    gallery: DescriptorSet, measure: Measure, distinct_content: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "stylesim.scoring.attribution.leave_one_out"
    monkeypatch.setattr(f"{module}.drop_one_of_each", lambda gallery, allowed, own, draws: allowed)
    loo = run(gallery, measure, distinct_content=distinct_content)
    labels = np.array([tags[0] for tags in gallery.items["tags"]])
    contents = gallery.items["content"].to_numpy()
    for position, work in enumerate(loo.work):
        left_out = np.arange(len(labels)) == work
        if distinct_content:
            left_out |= contents == contents[work]
        if loo.closed[position]:
            expected = best_of_reduced(gallery, work, left_out, measure, k=2)
            assert loo.top[position] == pytest.approx(expected, abs=2e-5)
        if not np.isnan(loo.foreign_top[position]):
            expected = best_of_reduced(gallery, work, left_out | (labels == labels[work]), measure, k=2)
            assert loo.foreign_top[position] == pytest.approx(expected, abs=2e-5)


def test_the_only_work_of_a_label_has_no_closed_attribution(gallery: DescriptorSet) -> None:
    loo = run(gallery, "csls")
    alone = [position for position, work in enumerate(loo.work) if gallery.ids[work].startswith("g/a2/")]
    assert not loo.closed[alone].any()
    assert np.isfinite(loo.foreign_top[alone]).all()
    assert loo.closed.sum() == sum(SIZES) - 1


def test_works_are_chosen_evenly_over_the_labels(gallery: DescriptorSet) -> None:
    grouped: LabelledGallery = group_by_label(gallery, "artist:*", 2)
    chosen = choose_works(grouped, 16, np.random.default_rng(0))
    per_label = grouped.has_label[chosen].sum(axis=0)
    assert per_label.tolist() == [3, 3, 1, 3, 3, 3]
    assert len(choose_works(grouped, 1000, np.random.default_rng(0))) == sum(SIZES)


def test_every_other_label_loses_a_work_too(gallery: DescriptorSet) -> None:
    grouped = group_by_label(gallery, "artist:*", 2)
    allowed = np.ones((4, sum(SIZES)), dtype=bool)
    own = np.zeros((4, len(SIZES)), dtype=bool)
    own[:, 0] = True
    kept = drop_one_of_each(grouped, allowed, own, np.random.default_rng(0).random(allowed.shape))
    left = kept.astype(int) @ grouped.has_label.astype(int)
    assert (left == [9, 2, 1, 13, 4, 5]).all(), "but its own one, and a single work stays"
