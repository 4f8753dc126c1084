from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylesim.report.score_report import SHOWN, summary, write_score_report
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table
from stylesim.scoring.style_score import score_sets

HOSTILE = "<script>&"
META = {"encoder": {"name": "E", "weights": HOSTILE}, "damaged": [[HOSTILE, "cut short"]]}


class Reader(HTMLParser):
    """Refuses what does not nest, and keeps the pictures and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.pictures, self.titles, self.text = [], 0, [], ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pictures += tag == "img"
        self.titles += [value for name, value in attrs if name == "title"]
        if tag not in ("meta", "img", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Shapes of the SVG."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def described(name: str, labels: list[str]) -> DescriptorSet:
    rows = np.random.default_rng(len(labels)).normal(size=(len(labels), 5)) + 1
    table = item_table((f"{name}/{i}.png", [x] if x else [], None, "", i) for i, x in enumerate(labels))
    return DescriptorSet(rows.astype(np.float32), table, META)


@pytest.mark.parametrize("labels", [["", ""], [HOSTILE, "b"]])
def test_the_page_nests_escapes_and_shows_images_in_the_order_of_their_scores(
    labels: list[str], tmp_path: Path
) -> None:
    sets = {"generated": described("g", labels * SHOWN), "reference": described("r", labels * 6)}
    style_score = score_sets(sets["generated"], sets["reference"], neighbours=12)
    asked: dict[str, set[str]] = {}

    def find(side: str):
        def opened(wanted):
            asked[side] = set(wanted)
            return {name: Image.new("RGB", (30, 20)) for name in wanted if name != "r/0.png"}

        return opened

    page = Reader(write_score_report(tmp_path, style_score, sets, {side: find(side) for side in sets}).read_text())
    assert page.open == []
    assert len(asked["generated"]) == SHOWN
    assert len(page.titles) == SHOWN * 11, "ten works beside each"
    shown = [name for name in page.titles if name.startswith("g/")]
    order = style_score.per_image["id"].tolist()
    assert shown == sorted(shown, key=order.index)
    assert shown[0] == order[0]
    assert shown[-1] == order[-1]
    assert page.pictures == sum(name != "r/0.png" for name in page.titles)
    assert f"{style_score.metrics['gss']:.3f}" in page.text
    assert summary(style_score, sets) in page.text
    assert HOSTILE in page.text


def test_a_single_image_and_a_single_work_make_a_page(tmp_path: Path) -> None:
    sets = {"generated": described("g", [""]), "reference": described("r", [""])}
    style_score = score_sets(sets["generated"], sets["reference"])
    nothing = {side: lambda wanted: {} for side in sets}
    page = Reader(write_score_report(tmp_path, style_score, sets, nothing).read_text())
    assert "95 %:" not in page.text, "one image has no interval"
    assert "1 generated image resembles" in page.text
