from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylesim.core.errors import StylesimError
from stylesim.evaluation.evaluate_descriptors import RetrievalResult, evaluate_descriptors
from stylesim.evaluation.retrieval_spec import RetrievalSpec
from stylesim.report.neighbour_gallery import RIGHT, WRONG, draw_contact_sheet, gallery_html, neighbour_rows
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


def open_item(name: str) -> Image.Image:
    if name == "w/0":
        raise StylesimError("gone")
    return Image.new("RGB", (40, 20), (0, 0, 10 * int(name[2:])))


def test_chosen_queries_cover_the_labels_and_a_third_of_them_failed(retrieval: RetrievalResult):
    rows = neighbour_rows(retrieval, open_item, n_queries=9, k=5)
    assert {row.query.label for row in rows} == {"<a>", "<b>", "<c>", "<d>"}
    assert sum(not row.neighbours[0].correct for row in rows) == 3
    assert [row.query.label for row in rows] == sorted(row.query.label for row in rows)
    for row in rows:
        assert row.query.id not in {work.id for work in row.neighbours}
        scores = [work.similarity or 0.0 for work in row.neighbours]
        assert scores == sorted(scores, reverse=True)
        assert all(work.correct == (work.label == row.query.label) for work in row.neighbours)


def test_failures_alone_are_shown_where_they_are_asked_for(retrieval: RetrievalResult):
    rows = neighbour_rows(retrieval, open_item, n_queries=24, k=3, only_failures=True)
    assert len(rows) == (~retrieval.relevance[:, 0]).sum() > 0
    assert not any(row.neighbours[0].correct for row in rows)


def test_the_choice_is_repeatable_and_never_longer_than_the_queries(retrieval: RetrievalResult):
    def chosen(**options: Any) -> list[str]:
        return [row.query.id for row in neighbour_rows(retrieval, open_item, k=1, **options)]

    assert chosen(n_queries=6) == chosen(n_queries=6)
    assert chosen(n_queries=6) != chosen(n_queries=6, seed=1)
    assert sorted(chosen(n_queries=99)) == sorted(retrieval.queries.ids)


def test_right_and_wrong_are_framed_and_named(retrieval: RetrievalResult):
    rows = neighbour_rows(retrieval, open_item, n_queries=4, k=3)
    html = gallery_html(rows)
    works = [work for row in rows for work in row.neighbours]
    assert html.count('class="work right"') == sum(bool(work.correct) for work in works)
    assert html.count('class="work wrong"') == sum(not work.correct for work in works) > 0
    assert "&lt;a&gt;" in html
    assert "<a>" not in html
    colours = {colour for _, colour in draw_contact_sheet(rows).getcolors(1 << 20) or []}
    assert {RIGHT, WRONG} <= colours


def test_an_image_that_is_gone_leaves_its_place_empty(retrieval: RetrievalResult):
    rows = neighbour_rows(retrieval, open_item, n_queries=24, k=5)
    assert any(work.image is None for row in rows for work in row.neighbours)
    assert 'class="lost"' in gallery_html(rows)
    draw_contact_sheet(rows)
