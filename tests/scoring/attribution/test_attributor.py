from __future__ import annotations

import numpy as np
import pytest
from made_up_styles import DIM, directions, truth, works

from stylesim.core.errors import ConfigError, DataError
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table
from stylesim.scoring.attribution.attribution import Attribution
from stylesim.scoring.attribution.attribution_calibration import calibration_error, reliability_curve
from stylesim.scoring.attribution.attributor import attribute
from stylesim.scoring.attribution.label_ranking import COLUMNS

LABELS = 24
SPREAD = 0.22
"""So wide that some works are attributed wrongly."""


@pytest.fixture(scope="module")
def gallery() -> DescriptorSet:
    return works(directions(LABELS), 12, spread=SPREAD)


@pytest.fixture(scope="module")
def queries() -> DescriptorSet:
    return works(directions(LABELS), 20, spread=SPREAD, seed=5, name="q")


@pytest.fixture(scope="module")
def foreign() -> DescriptorSet:
    """Images of labels that are not in the gallery."""
    return works(directions(30, seed=9), 10, spread=SPREAD, seed=6, name="f", first=100)


@pytest.fixture(scope="module")
def attribution(queries: DescriptorSet, gallery: DescriptorSet) -> Attribution:
    return attribute(queries, gallery, label="artist:*")


def test_images_are_attributed_to_their_label(attribution: Attribution, queries: DescriptorSet) -> None:
    best = attribution.table.query("rank == 1")
    assert np.mean(best["label"].to_numpy() == truth(queries)) > 0.9
    verdicts = attribution.verdicts
    named = verdicts["verdict"].to_numpy() == "attributed"
    assert named.mean() > 0.5
    assert np.mean(verdicts["labels"].to_numpy()[named] == truth(queries)[named]) > 0.95


def test_the_table_has_its_columns_and_is_consistent(attribution: Attribution, gallery: DescriptorSet) -> None:
    table = attribution.table
    assert tuple(table.columns) == COLUMNS
    assert np.all(table.groupby("query")["rank"].apply(list).map(tuple) == (1, 2, 3, 4, 5))
    assert np.all(table["low"] <= table["score"])
    assert np.all(table["score"] <= table["high"])
    first, second = (table.query(f"rank == {rank}").set_index("query") for rank in (1, 2))
    np.testing.assert_allclose(first["margin"], first["score"] - second["score"])
    np.testing.assert_allclose(second["margin"], second["score"] - first["score"])
    assert table["p_value"].between(1 / (LABELS + 1), 1).all()
    tags = dict(zip(gallery.items["id"], gallery.items["tags"], strict=True))
    assert all(tags[row["nearest"]] == [row["label"]] for row in table.to_dict("records"))


def test_probabilities_are_calibrated_on_new_images(attribution: Attribution, queries: DescriptorSet) -> None:
    calibration = attribution.calibration
    assert calibration.ece < 0.05
    assert calibration.ece_if_calibrated < 0.05
    best = attribution.table.query("rank == 1")["label"].to_numpy()
    predicted, right = attribution.verdicts["probability"].to_numpy(), (best == truth(queries)).astype(float)
    assert calibration_error(reliability_curve(predicted, right)) < 0.07
    # A work that is left out leaves its label one work short, so the probabilities are too low rather than too high.
    assert predicted.mean() < right.mean() + 0.01


def test_probabilities_of_thin_labels_are_calibrated_too() -> None:
    centres = directions(150)
    images = works(centres, 4, spread=0.3, seed=5, name="q")
    result = attribute(images, works(centres, 3, spread=0.3), label="artist:*")
    best = result.table.query("rank == 1")["label"].to_numpy()
    right = (best == truth(images)).astype(float)
    assert 0.2 < right.mean() < 0.9
    assert calibration_error(reliability_curve(result.verdicts["probability"].to_numpy(), right)) < 0.1


def test_foreign_labels_are_seldom_named(gallery: DescriptorSet, foreign: DescriptorSet) -> None:
    verdicts = attribute(foreign, gallery, label="artist:*").verdicts
    assert np.mean(verdicts["p_value"] <= 0.1) <= 0.1
    assert np.mean(verdicts["verdict"] == "none") >= 0.9


def test_closed_attribution_never_says_none(gallery: DescriptorSet, foreign: DescriptorSet) -> None:
    verdicts = attribute(foreign, gallery, label="artist:*", closed=True).verdicts
    assert not np.any(verdicts["verdict"] == "none")


def test_shuffled_labels_give_chance_and_no_names(gallery: DescriptorSet, queries: DescriptorSet) -> None:
    items = gallery.items.copy()
    items["tags"] = np.random.default_rng(3).permutation(items["tags"].to_numpy())
    shuffled = attribute(queries, DescriptorSet(gallery.descriptors, items, gallery.meta), label="artist:*")
    assert shuffled.calibration.accuracy < 3 / LABELS
    assert shuffled.calibration.auc_open_set == pytest.approx(0.5, abs=0.1)
    assert shuffled.calibration.ece < shuffled.calibration.ece_if_calibrated + 0.03
    assert not np.any(shuffled.verdicts["verdict"] == "attributed")
    assert np.max(shuffled.verdicts["probability"]) < 0.5
    named = shuffled.verdicts["verdict"] != "none"
    assert np.mean(named) < 0.3, "images that are no work of the gallery score as its works do"


def test_ambiguous_verdicts_hold_the_right_label_as_often_as_promised(
    gallery: DescriptorSet, queries: DescriptorSet
) -> None:
    result = attribute(queries, gallery, label="artist:*", closed=True, confidence=0.999)
    assert np.mean(result.verdicts["verdict"] == "ambiguous") > 0.2
    narrow = attribute(queries, gallery, label="artist:*", closed=True, confidence=0.98)
    held = [label in labels.split("|") for label, labels in zip(truth(queries), narrow.verdicts["labels"], strict=True)]
    assert np.mean(held) >= 0.95


def test_a_gallery_of_one_label_is_refused(queries: DescriptorSet) -> None:
    with pytest.raises(DataError, match=r"at least two labels.*only 'artist:a0'.*stylesim score"):
        attribute(queries, works(directions(1), 30), label="artist:*")
    with pytest.raises(DataError, match="selects none"):
        attribute(queries, works(directions(3), 3), label="painter:*")


@pytest.mark.parametrize("closed", [False, True])
def test_one_work_per_label_never_gives_a_name(queries: DescriptorSet, closed: bool) -> None:
    result = attribute(queries, works(directions(LABELS), 1, spread=0.01), label="artist:*", closed=closed)
    assert not np.any(result.verdicts["verdict"] == "attributed")
    assert np.all(np.isnan(result.table["low"])), "nothing tells how works of a label differ"
    assert np.all(np.isnan(result.verdicts["probability"]))
    assert result.gaps is None
    assert any("two works or more" in note for note in result.notes)
    assert "single work" in str(result)


def test_a_thin_label_has_a_wide_interval_and_no_name() -> None:
    centres, sizes = directions(LABELS), [12] * LABELS
    sizes[0] = 1
    images = works(centres[:1], 20, spread=0.02, name="q", seed=4)
    result = attribute(images, works(centres, sizes, spread=0.1), label="artist:*", nearest_works=1)
    best = result.table.query("rank == 1")
    assert np.all(best["label"] == "artist:a0")
    assert np.all(best["high"] - best["low"] > 1)
    assert not np.any(result.verdicts["verdict"] == "attributed")


def test_few_labels_cannot_exclude_others(queries: DescriptorSet) -> None:
    small = works(directions(4), 12, spread=SPREAD)
    result = attribute(queries, small, label="artist:*")
    assert np.all(result.verdicts["verdict"] == "none")
    assert any("no p-value is below 0.200" in note for note in result.notes)
    own = queries.select(range(80))
    assert np.mean(attribute(own, small, label="artist:*", closed=True).verdicts["verdict"] == "attributed") > 0.5


def test_an_image_that_is_in_the_gallery_is_not_compared_with_itself(gallery: DescriptorSet) -> None:
    result = attribute(gallery, gallery, label="artist:*")
    assert np.all(result.table["nearest"] != result.table["query"])
    loo = result.calibration
    best = result.table.query("rank == 1")["label"].to_numpy()
    assert (best == truth(gallery)).mean() == pytest.approx(loo.accuracy, abs=0.02)


def test_the_same_image_under_another_name_is_pointed_out(gallery: DescriptorSet) -> None:
    items = gallery.items.assign(id=[f"other/{id}" for id in gallery.items["id"]])
    result = attribute(DescriptorSet(gallery.descriptors, items, gallery.meta), gallery, label="artist:*")
    assert result.verdicts["identical"].tolist() == gallery.ids
    assert any("contains the image itself" in note for note in result.notes)


def test_works_of_the_same_content_can_be_left_out(gallery: DescriptorSet) -> None:
    images = works(directions(LABELS), 2, name="q", seed=8)
    contents = dict(zip(gallery.items["id"], gallery.items["content"], strict=True))
    result = attribute(images, gallery, label="artist:*", distinct_content=True)
    queries = dict(zip(images.items["id"], images.items["content"], strict=True))
    assert all(contents[row["nearest"]] != queries[row["query"]] for row in result.table.to_dict("records"))
    assert set(result.table["works"]) == {11}
    with pytest.raises(DataError, match="fewer than two labels"):
        attribute(images, works(directions(LABELS), 1), label="artist:*", distinct_content=True)


def test_works_with_two_labels_count_for_both() -> None:
    gallery = works(directions(12), 6)
    tags = [[*tags, "artist:pair"] if tags[0] in ("artist:a0", "artist:a1") else tags for tags in gallery.items["tags"]]
    both = DescriptorSet(gallery.descriptors, gallery.items.assign(tags=tags), gallery.meta)
    result = attribute(works(directions(12)[:1], 3, name="q", seed=7), both, label="artist:*")
    first_two = result.table[result.table["rank"] <= 2].groupby("query")["label"].apply(set)
    assert np.all(first_two.map(lambda labels: labels == {"artist:a0", "artist:pair"}))
    assert result.per_label.set_index("label").loc["artist:pair", "works"] == 12


def test_images_without_a_label_are_left_out_and_counted() -> None:
    gallery = works(directions(12), 6)
    tags = [[] if id.endswith("/0") else tags for id, tags in zip(gallery.ids, gallery.items["tags"], strict=True)]
    result = attribute(works(directions(12), 1, name="q", seed=7), gallery_with(gallery, tags), label="artist:*")
    assert (result.unlabelled, result.gallery_works) == (12, 60)
    assert any("12 images of the gallery have no label" in note for note in result.notes)


def gallery_with(gallery: DescriptorSet, tags: list[list[str]]) -> DescriptorSet:
    return DescriptorSet(gallery.descriptors, gallery.items.assign(tags=tags), gallery.meta)


@pytest.mark.parametrize("measure", ["cosine", "csls", "csls_label_aware"])
@pytest.mark.parametrize("pool", ["nearest", "pooled"])
def test_every_score_attributes_well_separated_labels(measure, pool) -> None:
    images = works(directions(LABELS), 3, name="q", seed=7, spread=0.1)
    result = attribute(images, works(directions(LABELS), 6, spread=0.1), label="artist:*", measure=measure, pool=pool)
    best = result.table.query("rank == 1")
    assert np.all(best["label"].to_numpy() == truth(images))
    np.testing.assert_allclose(result.table["score"], result.evidence[f"{pool}_{measure}"], rtol=1e-5)


def test_sets_of_two_encoders_are_refused(gallery: DescriptorSet) -> None:
    other = DescriptorSet(
        np.ones((2, DIM + 1), np.float32), item_table([("a", [], None, "", 0), ("b", [], None, "", 1)])
    )
    with pytest.raises(DataError, match="descriptors of different encoders cannot be compared"):
        attribute(other, gallery)


def test_empty_queries_and_wrong_numbers_are_refused(gallery: DescriptorSet) -> None:
    with pytest.raises(DataError, match="queries are empty"):
        attribute(gallery.select([]), gallery)
    with pytest.raises(ConfigError, match="ranks must be at least 1"):
        attribute(gallery, gallery, ranks=0)
    with pytest.raises(ConfigError, match="alpha must be between 0 and 1"):
        attribute(gallery, gallery, alpha=0.0)


def test_a_database_is_exported_and_a_folder_loaded(gallery: DescriptorSet, tmp_path) -> None:
    class Database:
        def export(self, folder) -> DescriptorSet:
            gallery.save(folder)
            return DescriptorSet.load(folder)

    images = works(directions(3), 1, name="q", seed=7)
    direct = attribute(images, gallery, label="artist:*").table
    gallery.save(tmp_path / "set")
    assert attribute(images, Database(), label="artist:*").table.equals(direct)
    assert attribute(images, str(tmp_path / "set"), label="artist:*").table.equals(direct)


def test_a_result_shows_itself(attribution: Attribution) -> None:
    text, html = str(attribution), attribution._repr_html_()
    assert "q/a0/0: " in text
    assert "and 460 more" in text
    assert "measured at 24 labels with a median of 12 works" in text
    assert html.startswith("<table")


def test_results_do_not_depend_on_blocks(
    queries: DescriptorSet, gallery: DescriptorSet, attribution: Attribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("label_ranking", "leave_one_out"):
        monkeypatch.setattr(f"stylesim.scoring.attribution.{module}.BLOCK_NUMBERS", 7 * len(gallery))
    again = attribute(queries, gallery, label="artist:*")
    assert again.verdicts["words"].equals(attribution.verdicts["words"])
    np.testing.assert_allclose(again.table["score"], attribution.table["score"], rtol=1e-5, atol=1e-6)
