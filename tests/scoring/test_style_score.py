from __future__ import annotations

import numpy as np
import pytest

from stylesim.core.errors import StylesimError
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table
from stylesim.retrieval.readouts import Csls, Whitened
from stylesim.scoring.shared_images import find_copies
from stylesim.scoring.style_score import METRICS, score_sets

STYLES = np.eye(4)


def make_set(seed: int, labels: str, *, scale: float = 1.0, noise: float = 0.3, **meta: str) -> DescriptorSet:
    """Return images around one direction per label; a label is a letter, or "-" for none."""
    rng = np.random.default_rng(seed)
    places = ["abcd".find(label) for label in labels]
    rows = np.array([STYLES[max(p, 0)] for p in places]) + noise * rng.normal(size=(len(labels), 4))
    rows *= scale / np.linalg.norm(rows, axis=1, keepdims=True)
    table = item_table((f"{seed}/{i}", [] if x == "-" else [x], None, "", i) for i, x in enumerate(labels))
    return DescriptorSet(rows.astype(np.float32), table, meta)


def test_without_labels_all_images_are_compared_with_all_works() -> None:
    generated, works = make_set(0, "----"), make_set(1, "-------")
    table = generated.descriptors @ works.descriptors.T
    found = score_sets(generated, works, neighbours=3)
    assert not found.labels_matched
    assert found.metrics["gss"] == pytest.approx(table.mean(), abs=1e-6)
    assert found.metrics["gss_of_means"] == pytest.approx(found.metrics["gss"], abs=1e-6)
    assert found.intervals["gss"][0] < found.metrics["gss"] < found.intervals["gss"][1]
    assert found.per_label.empty
    assert found.per_image["gss"].is_monotonic_decreasing
    best = found.per_image.set_index("id").loc["0/2"]
    assert best["nearest"] == f"1/{table[2].argmax()}"
    assert best["nearest_mean"] == pytest.approx(np.sort(table[2])[-3:].mean(), abs=1e-6)
    assert len(found.pairs) == 12
    assert found.pairs["similarity"].is_monotonic_decreasing
    assert found.pairs["similarity"].iloc[0] == pytest.approx(table.max(), abs=1e-6)


def test_generated_images_are_compared_with_the_works_of_their_own_label() -> None:
    generated, works = make_set(0, "aaabbd-"), make_set(1, "aaaabbbbcccc")
    table = (generated.descriptors @ works.descriptors.T).astype(float)
    found = score_sets(generated, works)
    assert found.labels_matched
    assert found.unmatched_labels == ["d", "(none)"]
    assert len(found.per_image) == 5
    assert found.metrics["gss"] == pytest.approx((table[:3, :4].mean() * 3 + table[3:5, 4:8].mean() * 2) / 5, abs=1e-6)
    line = found.per_label.set_index("label").loc["b"]
    assert line["gss"] == pytest.approx(table[3:5, 4:8].mean(), abs=1e-6)
    best = max(table[3:5, :4].mean(), table[3:5, 8:].mean())
    assert line["discrimination"] == pytest.approx(line["gss"] - best, abs=1e-6)
    assert line["works"] == 4
    assert line["own_works"] < 1


def test_csls_neighbourhoods_span_all_labels() -> None:
    generated, works = make_set(0, "aab"), make_set(1, "aabb")
    table = (generated.descriptors @ works.descriptors.T).astype(float)
    near = [np.sort(t, axis=1)[:, -2:].mean(1) for t in (table, table.T)]
    csls = 2 * table - near[0][:, None] - near[1]
    q, g = Csls(2)(generated.descriptors, works.descriptors)
    np.testing.assert_allclose(q @ g.T, csls, atol=1e-6, err_msg="the Csls readout differs")
    found = score_sets(generated, works, csls_k=2)
    labels = found.per_label.set_index("label")
    assert labels.loc["a", "csls"] == pytest.approx(csls[:2, :2].mean(), abs=1e-6)
    assert labels.loc["b", "discrimination_csls"] == pytest.approx(csls[2, 2:].mean() - csls[2, :2].mean(), abs=1e-6)
    first = found.pairs.iloc[0]
    row, column = (int(first[side].split("/")[1]) for side in ("generated", "reference"))
    assert first["csls"] == pytest.approx(csls[row, column], abs=1e-6)


def test_unlabelled_generated_images_are_compared_with_every_label() -> None:
    found = score_sets(make_set(0, "------"), make_set(1, "aaabbb"))
    assert not found.labels_matched
    assert found.per_label["label"].tolist() == ["a", "b"], "images without a label lie around the first direction"
    assert len(found.reference_similarities.same) == 6
    assert len(found.reference_similarities.different) == 6


def test_an_image_with_several_labels_counts_with_each() -> None:
    generated = make_set(0, "a")
    generated.items.at[0, "tags"] = ["a", "b"]
    found = score_sets(generated, make_set(1, "aabb"))
    assert found.per_image["label"].tolist() == ["a", "b"]
    assert found.per_label["generated"].tolist() == [1, 1]


def test_order_and_length_of_descriptors_do_not_change_the_metrics() -> None:
    generated, works = make_set(0, "aaabbb"), make_set(1, "aabbcc")
    changed = score_sets(make_set(0, "aaabbb", scale=7.0).select([5, 2, 0, 1, 4, 3]), works.select([3, 1, 2, 5, 4, 0]))
    for name, value in score_sets(generated, works).metrics.items():
        assert changed.metrics[name] == pytest.approx(value, abs=1e-6)
    assert set(changed.metrics) == set(METRICS)


def test_a_single_generated_image_has_no_interval() -> None:
    found = score_sets(make_set(0, "-"), make_set(1, "--"))
    assert found.intervals == {}
    assert np.isfinite(found.metrics["gss_renormalised"])


def test_sets_of_two_encoders_are_refused() -> None:
    with pytest.raises(StylesimError, match="descriptors of different encoders cannot be compared"):
        score_sets(make_set(0, "a", encoder_digest="1"), make_set(1, "a", encoder_digest="2"))


def test_a_readout_is_applied_before_scoring() -> None:
    generated, works = make_set(0, "aabb"), make_set(1, "aaaabbbbcccc")
    q, g = Whitened()(generated.descriptors, works.descriptors)
    found = score_sets(generated, works, readout=Whitened())
    assert found.metrics["gss"] == pytest.approx((q[:2] @ g[:4].T).mean() / 2 + (q[2:] @ g[4:8].T).mean() / 2, abs=1e-5)
    assert found.metrics["gss"] != pytest.approx(score_sets(generated, works).metrics["gss"], abs=1e-3)


def test_an_image_with_several_labels_is_one_observation() -> None:
    single = make_set(0, "a")
    twice = DescriptorSet(single.descriptors, single.items.assign(tags=[["a", "b"]]), single.meta)
    found = score_sets(twice, make_set(1, "aabb"))
    assert len(found.per_image) == 2
    assert found.intervals == {}


def test_sets_with_and_without_colour_are_refused() -> None:
    grey = make_set(0, "ab")
    grey.meta["greyscale"] = True
    with pytest.raises(StylesimError, match="same value of greyscale"):
        score_sets(grey, make_set(1, "ab"))


def same_rows(count: int) -> np.ndarray:
    """Return the copies of a set that is compared with itself."""
    return np.stack([np.arange(count)] * 2, axis=1)


@pytest.mark.parametrize(("labels", "scale"), [("-" * 10, "others"), ("aaaabbbbbcc", "same")])
def test_works_compared_with_themselves_score_as_they_do_among_each_other(labels: str, scale: str) -> None:
    works = make_set(0, labels)
    found = score_sets(works, works, copies=same_rows(len(works)))
    expected = getattr(found.reference_similarities, scale).mean()
    assert found.metrics["gss"] == found.metrics["gss_of_means"] == pytest.approx(expected, abs=1e-6)
    if scale == "same":
        np.testing.assert_allclose(found.per_label["gss"], found.per_label["own_works"], atol=1e-6)
    assert not np.any(found.pairs["generated"] == found.pairs["reference"]), "no image is its own neighbour"
    kept = score_sets(works, works, copies=same_rows(len(works)), keep_copies=True)
    assert kept.metrics == score_sets(works, works).metrics
    assert kept.metrics["gss"] > found.metrics["gss"]
    assert len(kept.copies) == len(found.copies) == len(works)


def test_scores_without_copies_equal_scores_of_each_image_with_the_other_works() -> None:
    works, generated = make_set(1, "-" * 8), make_set(0, "-" * 6)
    generated.descriptors[2] = works.descriptors[5]
    found = score_sets(generated, works, copies=np.array([[2, 5]]), csls_k=3)
    rest = [row for row in range(8) if row != 5]
    alone = score_sets(generated.select([2]), works.select(rest), csls_k=3).metrics
    other = score_sets(generated.select([0, 1, 3, 4, 5]), works, csls_k=3).metrics
    for name in ("gss", "gss_unit_prototype"):
        assert found.metrics[name] == pytest.approx((alone[name] + 5 * other[name]) / 6, abs=1e-6)
    image = found.per_image.set_index("id").loc["0/2"]
    table = generated.descriptors.astype(float) @ works.descriptors.T
    table[2, 5] = np.nan
    near = [np.nanmean(-np.sort(-side, axis=1)[:, :3], axis=1) for side in (table, table.T)]
    csls = np.nanmean((2 * table - near[0][:, None] - near[1])[2])
    assert image["csls"] == pytest.approx(csls, abs=1e-6)


def test_image_whose_only_work_is_its_copy_has_no_score() -> None:
    works = make_set(0, "aab")
    found = score_sets(works, works, copies=same_rows(3))
    assert found.per_image["label"].tolist() == ["a", "a"]
    with pytest.raises(StylesimError, match="keep_copies=true"):
        score_sets(works.select([0, 2]), works.select([0, 2]), copies=same_rows(2))


def test_copies_are_found_by_content_and_by_descriptor_where_the_files_are_gone() -> None:
    works, generated = make_set(0, "aaab"), make_set(1, "bb")
    generated.descriptors[0] = works.descriptors[3] * np.float32(2)
    works.descriptors[1] = works.descriptors[0] + np.float32(1e-4)
    sets = (works.select([0, 3]), works)
    near = {"0/0": "x", "0/3": "z", "0/1": "y"}
    found = find_copies(*sets, {name: lambda ids: near for name in ("generated", "reference")})
    assert found.tolist() == [[0, 0], [1, 3]], "not the near-duplicate, whose file differs"
    gone = {name: lambda ids: {} for name in ("generated", "reference")}
    assert find_copies(generated, works, gone).tolist() == [[0, 3]]
