"""Rankings with a known truth: mixtures of the right and of a wrong style."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_up_styles import directions, works

from stylesim.core.errors import DataError
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.ranking.rank_sets import ContentComparison, rank_sets
from stylesim.scoring.shared_images import find_copies

CENTRES = directions(2)
IMAGES = 40


def unlabelled(images: DescriptorSet) -> DescriptorSet:
    items = images.items.assign(tags=[[] for _ in range(len(images))])
    return DescriptorSet(np.asarray(images.descriptors), items, images.meta)


def mixture(right: int, seed: int, images: int = IMAGES) -> DescriptorSet:
    """A candidate of which `right` of the images have the style of the reference."""
    both = works(CENTRES, [images, images], seed=seed, name="c")
    return unlabelled(both.select([*range(right), *range(images + right, 2 * images)]))


REFERENCE = unlabelled(works(CENTRES[:1], 30, seed=1, name="r"))


def test_mixtures_are_ranked_by_their_share_of_the_right_style() -> None:
    candidates = {f"share {right}": mixture(right, seed=right + 2) for right in (20, 0, 40, 10, 30)}
    ranking = rank_sets(candidates, REFERENCE)
    assert ranking.order == [f"share {right}" for right in (40, 30, 20, 10, 0)]
    assert np.all(np.asarray(ranking.comparisons["p_corrected"] >= ranking.comparisons["p_value"]))
    assert ranking.comparisons["p_corrected"].iloc[0] < 0.05
    assert min(ranking.comparisons["difference"].tolist()) > 0
    assert sum(ranking.table["first"].tolist()) == pytest.approx(1)
    assert not np.any(ranking.table["collapsed"])
    assert ranking.table["style_encoder"].unique().tolist() == ["made up"]
    assert "share 40" in str(ranking)
    assert "made up" in ranking._repr_html_()


@pytest.mark.slow
def test_the_interval_covers_the_expected_similarity() -> None:
    """Of 40 candidates of half the right style, about 95 % of the intervals hold the mean over all of them."""
    tables = [rank_sets({"c": mixture(10, seed=seed, images=20)}, REFERENCE).table for seed in range(100, 140)]
    rows = [table.iloc[0] for table in tables]
    truth = np.mean([row["style_similarity"] for row in rows])
    assert np.mean([row["low"] <= truth <= row["high"] for row in rows]) > 0.88


def test_duplicates_of_one_image_are_a_collapse() -> None:
    one = mixture(IMAGES, seed=5).select([0] * 1)
    rows = np.repeat(np.asarray(one.descriptors), 12, axis=0)
    many = mixture(IMAGES, seed=6).select(range(12))
    copies = DescriptorSet(rows, many.items, many.meta)
    ranking = rank_sets({"varied": mixture(IMAGES, seed=7), "same": copies}, REFERENCE)
    table = ranking.table.set_index("candidate")
    assert table["collapsed"].to_dict() == {"varied": False, "same": True}
    assert table.loc["same", "repeats"] == 1
    assert table.loc["same", "vendi"] == pytest.approx(1, abs=1e-3)
    assert any(note.startswith("Collapsed") and "same" in note for note in ranking.notes)


def test_the_reference_itself_is_compared_with_its_other_works() -> None:
    copies = find_copies(REFERENCE, REFERENCE, dict.fromkeys(("generated", "reference"), lambda ids: {}))
    ranking = rank_sets({"itself": REFERENCE}, REFERENCE, copies={"itself": copies})
    row = ranking.table.iloc[0]
    assert row["in_reference"] == 1
    assert row["style_similarity"] == pytest.approx(row["works_others"], abs=1e-6)
    assert any("Every image is a file of the reference" in note for note in ranking.notes)


def test_candidates_with_other_names_are_compared_unpaired() -> None:
    renamed = mixture(0, seed=9)
    items = renamed.items.assign(id=[f"c/other/{number}" for number in range(100, 100 + len(renamed))])
    other = DescriptorSet(np.asarray(renamed.descriptors), items, renamed.meta)
    shared = mixture(IMAGES, seed=10)
    assert rank_sets({"a": shared, "b": other}, REFERENCE).comparisons["paired"].tolist() == [False]
    assert rank_sets({"a": shared, "b": mixture(IMAGES, seed=11)}, REFERENCE).comparisons["paired"].tolist() == [True]


def test_candidates_of_which_only_some_share_labels_are_refused() -> None:
    labelled = works(CENTRES, [20, 20], seed=3, name="r")
    with pytest.raises(DataError, match="b has none"):
        rank_sets({"a": works(CENTRES, [5, 5], seed=4), "b": mixture(5, seed=5)}, labelled)


def test_a_pair_without_a_mismatch_is_left_out_of_the_scale() -> None:
    images = mixture(IMAGES, seed=12)
    measured = {"content_similarity": 0.8, "content_similarity_mismatched": 0.2}
    table = pd.DataFrame({"image": images.ids, "content": images.ids}).assign(**measured)
    table.loc[0, "content_similarity_mismatched"] = np.nan
    content = ContentComparison({"a": table}, {"content_similarity": "E"})
    row = rank_sets({"a": images}, REFERENCE, content=content).table.to_dict("records")[0]
    assert row["content_similarity_mismatched"] == pytest.approx(0.2)
    assert row["content_similarity_by"] == "E"
