from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from html_reader import HTMLReader
from PIL import Image

from stylesim.report.pages.score_report import SHOWN, summary, write_score_report
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table
from stylesim.scoring.style_score import score_sets

HOSTILE = "<script>&"
META = {"encoder": {"name": "E", "weights": HOSTILE}, "damaged": [[HOSTILE, "cut short"]]}


def descriptors(name: str, labels: list[str]) -> DescriptorSet:
    rows = np.random.default_rng(len(labels)).normal(size=(len(labels), 5)) + 1
    table = item_table((f"{name}/{i}.png", [x] if x else [], None, "", i) for i, x in enumerate(labels))
    return DescriptorSet(rows.astype(np.float32), table, META)


@pytest.mark.parametrize("labels", [["", ""], [HOSTILE, "b"]])
def test_page_escapes_text_and_shows_images_in_the_order_of_their_scores(labels: list[str], tmp_path: Path) -> None:
    sets = {"generated": descriptors("g", labels * SHOWN), "reference": descriptors("r", labels * 6)}
    score = score_sets(sets["generated"], sets["reference"], neighbours=12)
    requested: dict[str, set[str]] = {}

    def find(side: str):
        def find_images(wanted):
            requested[side] = set(wanted)
            return {name: Image.new("RGB", (30, 20)) for name in wanted if name != "r/0.png"}

        return find_images

    page = HTMLReader(write_score_report(tmp_path, score, sets, {side: find(side) for side in sets}).read_text())
    assert len(requested["generated"]) == SHOWN
    assert len(page.titles) == SHOWN * 11, "ten works beside each"
    shown = [name for name in page.titles if name.startswith("g/")]
    order = score.per_image["id"].tolist()
    assert shown == sorted(shown, key=order.index)
    assert shown[0] == order[0]
    assert shown[-1] == order[-1]
    assert page.images == sum(name != "r/0.png" for name in page.titles)
    assert f"{score.metrics['gss']:.3f}" in page.text
    assert summary(score, sets) in page.text
    assert HOSTILE in page.text


def test_single_image_and_single_work_make_a_page(tmp_path: Path) -> None:
    sets = {"generated": descriptors("g", [""]), "reference": descriptors("r", [""])}
    score = score_sets(sets["generated"], sets["reference"])
    nothing = {side: lambda wanted: {} for side in sets}
    page = HTMLReader(write_score_report(tmp_path, score, sets, nothing).read_text())
    assert "95 %:" not in page.text, "the score of one image has no interval"
    assert "The generated image has a style similarity of" in page.text
