from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from stylesim.report.html_page import Section, code_html, damaged_html, facts_html, image_uri, write_report


class Reader(HTMLParser):
    """Refuses what does not nest, and keeps what a reader or a network would see."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "wbr", "link"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_is_one_file_that_needs_no_network_and_escapes_what_it_is_told(tmp_path: Path):
    hostile = "<script>alert(1)</script> & co"
    sections = [
        Section("What it finds", f'<img alt="" src="{image_uri(Image.new("RGB", (8, 8)))}">'),
        Section("Damaged samples", damaged_html([(hostile, "truncated"), ("b", hostile)])),
        Section("Provenance", facts_html({"command": hostile})),
        Section(hostile, code_html(hostile), folded=True),
    ]
    path = write_report(tmp_path / "deep" / "report.html", hostile, sections, summary=hostile)

    page = path.read_text()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert "<script" not in page
    # Page title, heading, summary, link, section title, two samples, a fact, a config.
    assert reader.text.count(hostile) == 9
    assert all(link.startswith(("#", "data:image/webp;base64,")) for link in reader.links)
    assert not re.search(r"https?:", page)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert set(re.findall(r'href="#([^"]*)"', page)) == set(re.findall(r'id="([^"]*)"', page))


def test_damaged_samples_are_counted_and_the_first_ones_named():
    assert "Every sample could be read" in damaged_html([])
    many = damaged_html([(f"key-{i}", "torn") for i in range(1500)], shown=2)
    assert "1,500 samples were left out" in many
    assert "key-1" in many
    assert "key-2" not in many
