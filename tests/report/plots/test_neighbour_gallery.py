from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylesim.evaluation.evaluate_descriptors import RetrievalResult, evaluate_descriptors
from stylesim.evaluation.retrieval_spec import RetrievalSpec
from stylesim.report.html_page import render
from stylesim.report.plots.neighbour_gallery import (
    CORRECT,
    THUMBNAIL,
    WRONG,
    NeighbourRow,
    choose_queries,
    draw_contact_sheet,
    load_thumbnail,
    neighbour_rows,
    shown_ids,
)
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table


@pytest.fixture(scope="module")
def retrieval() -> RetrievalResult:
    """4 styles of 6 works; the descriptors of the last style are noise, so its queries fail."""
    rng = np.random.default_rng(0)
    vectors = np.eye(8)[np.repeat(np.arange(4), 6)] + rng.standard_normal((24, 8)) * 0.05
    vectors[18:] = rng.standard_normal((6, 8)) * 0.05 + np.eye(8)[np.arange(6) % 3]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = ((f"w/{i}", [f"set:<{'abcd'[i // 6]}>", "x:y"], None, "w", i) for i in range(24))
    items = DescriptorSet(vectors.astype(np.float32), item_table(rows))
    return evaluate_descriptors(items, None, RetrievalSpec(["w"], relevant="set:*", ks=(1, 5)))


def rows_of(retrieval: RetrievalResult, count: int, k: int = 5, *, only_failures: bool = False) -> list[NeighbourRow]:
    """Rows with an image for every id but `w/0`."""
    thumbnails = {f"w/{i}": Image.new("RGB", (40, 40), (0, 0, 10 * i)) for i in range(1, 24)}
    return neighbour_rows(retrieval, choose_queries(retrieval, count, only_failures=only_failures), thumbnails, k)


def test_queries_come_from_all_labels_and_a_third_of_them_fail(retrieval: RetrievalResult):
    rows = rows_of(retrieval, 9)
    assert {row.query.label for row in rows} == {"<a>", "<b>", "<c>", "<d>"}
    assert sum(not row.neighbours[0].correct for row in rows) == 3
    assert [row.query.label for row in rows] == sorted(row.query.label for row in rows)
    for row in rows:
        assert row.query.id not in {image.id for image in row.neighbours}
        similarities = [image.similarity or 0.0 for image in row.neighbours]
        assert similarities == sorted(similarities, reverse=True)
        assert all(image.correct == (image.label == row.query.label) for image in row.neighbours)


def test_only_failures_are_chosen_on_request(retrieval: RetrievalResult):
    rows = rows_of(retrieval, 24, only_failures=True)
    assert len(rows) == (~retrieval.relevance[:, 0]).sum() > 0
    assert not any(row.neighbours[0].correct for row in rows)


def test_choice_is_reproducible_and_has_no_query_twice(retrieval: RetrievalResult):
    assert choose_queries(retrieval, 6) == choose_queries(retrieval, 6)
    assert choose_queries(retrieval, 6) != choose_queries(retrieval, 6, seed=1)
    assert sorted(choose_queries(retrieval, 99)) == list(range(24))


def test_shown_ids_are_those_of_the_rows(retrieval: RetrievalResult):
    rows = rows_of(retrieval, 6, k=3)
    shown = {image.id for row in rows for image in (row.query, *row.neighbours)}
    assert shown_ids(retrieval, choose_queries(retrieval, 6), k=3) == shown


def test_correct_and_wrong_neighbours_are_marked_and_labels_escaped(retrieval: RetrievalResult):
    rows = rows_of(retrieval, 4, k=3)
    html = render("neighbours.html", rows=rows)
    images = [image for row in rows for image in row.neighbours]
    assert html.count('class="image correct"') == sum(bool(image.correct) for image in images)
    assert html.count('class="image wrong"') == sum(not image.correct for image in images) > 0
    assert "&lt;a&gt;" in html
    assert "<a>" not in html
    colours = {colour for _, colour in draw_contact_sheet(rows).getcolors(1 << 20) or []}
    assert {CORRECT, WRONG} <= colours


def test_missing_image_leaves_its_place_empty(retrieval: RetrievalResult):
    rows = rows_of(retrieval, 24)
    assert any(image.thumbnail is None for row in rows for image in row.neighbours)
    assert 'class="lost"' in render("neighbours.html", rows=rows)
    draw_contact_sheet(rows)


def test_thumbnails_are_square_and_damaged_files_have_none(tmp_path: Path):
    thumbnail = load_thumbnail(Image.new("RGB", (400, 200), "red"), RetrievalSpec([], greyscale=True))
    assert thumbnail is not None
    assert thumbnail.size == (THUMBNAIL, THUMBNAIL)
    red, green, blue = np.asarray(thumbnail)[0, 0]
    assert red == green == blue
    (tmp_path / "damaged.png").write_bytes(b"damaged")
    assert load_thumbnail(tmp_path / "damaged.png") is None
    assert load_thumbnail(None) is None
