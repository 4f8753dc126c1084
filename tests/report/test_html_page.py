from __future__ import annotations

import re
from pathlib import Path

import pytest
from html_reader import HTMLReader
from jinja2 import UndefinedError
from markupsafe import Markup
from PIL import Image

from stylesim.report.html_page import Section, image_uri, render, write_page
from stylesim.report.plots.neighbour_gallery import NeighbourRow, ShownImage

HOSTILE = "<script>alert(1)</script> & co"


def test_page_is_one_file_without_network_access_and_escapes_all_text(tmp_path: Path):
    row = NeighbourRow(ShownImage(f'"{HOSTILE}', HOSTILE, Image.new("RGB", (8, 8))), [])
    sections = [
        Section("Nearest neighbours", render("neighbours.html", rows=[row])),
        Section("Damaged", render("damaged_images.html", damaged=[(HOSTILE, "truncated"), ("b", HOSTILE)], shown=9)),
        Section("Provenance", render("facts.html", facts={"command": HOSTILE})),
        Section(HOSTILE, render("code.html", code=HOSTILE), folded=True),
    ]
    path = write_page(tmp_path / "deep" / "report.html", HOSTILE, sections, summary=HOSTILE)

    page = path.read_text()
    reader = HTMLReader(page)
    assert "<script" not in page
    # Page title, heading, summary, link, section title, an image's label, two damaged images, a fact, a configuration.
    assert reader.text.count(HOSTILE) == 10
    assert reader.titles == [f'"{HOSTILE}']
    assert all(link.startswith(("#", "data:image/webp;base64,")) for link in reader.links)
    assert not re.search(r"https?:", page)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert set(re.findall(r'href="#([^"]*)"', page)) == set(re.findall(r'id="([^"]*)"', page))


def test_damaged_images_are_counted_and_the_first_ones_listed():
    assert "Every image could be read" in render("damaged_images.html", damaged=[], shown=2)
    many = render("damaged_images.html", damaged=[(f"key-{i}", "truncated") for i in range(1500)], shown=2)
    assert "1,500 images were left out" in many
    assert "key-1" in many
    assert "key-2" not in many
    assert "1 image was left out" in render("damaged_images.html", damaged=[("key", "truncated")], shown=2)


def test_only_markup_is_inserted_unescaped():
    assert "<svg></svg>" in render("training_curves.html", panels={"Loss": Markup("<svg></svg>")})
    assert "&lt;svg&gt;" in render("training_curves.html", panels={"Loss": "<svg></svg>"})


def test_missing_value_of_a_template_is_an_error():
    with pytest.raises(UndefinedError, match="facts"):
        render("facts.html")


def test_image_uri_is_webp():
    assert image_uri(Image.new("RGB", (8, 8))).startswith("data:image/webp;base64,UklGR")
