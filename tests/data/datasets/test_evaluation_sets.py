"""What is known of retrieval sets before an image is opened."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from corpus import encoded_image, write_root

from stylesim.data.datasets.evaluation_sets import Census, TaggedSets, chance, summary
from stylesim.data.sample import Sample


def census(*tags: list[str]) -> Census:
    return Census.of(Sample(str(i), None, names, None, "x") for i, names in enumerate(tags))


def test_chance_is_the_relevant_share_of_what_each_query_searches() -> None:
    queries, gallery = census(["a:1"], ["a:1"], ["a:2"]), census(["a:1"], ["a:2", "b:1"], ["a:2"], ["a:3"])
    assert chance(queries, gallery, "a:*") == pytest.approx((1 / 4 + 1 / 4 + 2 / 4) / 3)
    assert chance(queries, gallery, "b:*") == 0
    # Without a gallery, a query does not search itself.
    assert chance(queries, None, "a:*") == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


def test_the_summary_counts_labels_of_either_side() -> None:
    text = summary("Mine", census(["a:1"], ["a:2"]), census(["a:1"], ["a:3"], ["b:1"]), {"artists": "a:*"})
    assert text == (
        "Mine: 5 images, 2 queries and a gallery of 3\n"
        "  artists: 3 x a:*, chance 16.67% (33.33% by the number of labels)"
    )


def test_shards_are_counted_by_their_index_and_evaluated_by_group(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = str(write_root(tmp_path / "shards", 30))
    (tmp_path / "more" / "set:1").mkdir(parents=True)
    (tmp_path / "more" / "set:1" / "1.jpg").write_bytes(encoded_image(1))
    gallery = [root, str(tmp_path / "more")]
    sets = TaggedSets(root, gallery=gallery, relevant={"sets": "set:*", "ones": "*:1"}, spec=SimpleNamespace)
    with caplog.at_level(logging.INFO):
        specs = sets.retrieval_sets()
    assert specs == {
        "sets": SimpleNamespace(query=[root], gallery=gallery, relevant="set:*"),
        "ones": SimpleNamespace(query=[root], gallery=gallery, relevant="*:1"),
    }
    said = caplog.text
    assert "61 images, 30 queries and a gallery of 31" in said
    assert "sets: 3 x set:*\n" in said, "no chance level: the table has the one that counts what is searched"
