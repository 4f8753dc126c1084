from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from stylesim.report.score_scale import LEFT, RIGHT, Distribution, scale_html


def drawn(ridges: list[Distribution], value: float, interval: tuple[float, float] | None = None) -> ElementTree.Element:
    """The picture, read as XML: it nests."""
    return ElementTree.fromstring(scale_html(ridges, value, interval))


def texts(picture: ElementTree.Element) -> dict[str, float]:
    return {t.text or "": float(t.attrib["x"]) for t in picture.iter("text")}


def test_the_number_stands_at_its_place_between_the_ticks() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    picture = drawn([Distribution("works & more", values, "--right")], 0.6, (0.55, 0.65))
    said = texts(picture)
    assert {"works & more", "0.600", "95 %: 0.550 – 0.650"} <= said.keys()
    ticks = {float(text): x for text, x in said.items() if re.fullmatch(r"[\d.]+", text) and text != "0.600"}
    slope, start = np.polyfit(list(ticks), list(ticks.values()), 1)
    (marker,) = (p for p in picture.iter("path") if p.attrib.get("stroke") == "var(--accent)")
    assert float(marker.attrib["d"][1:].split(" ")[0]) == pytest.approx(start + slope * 0.6, abs=0.1)
    (band,) = picture.iter("rect")
    assert float(band.attrib["width"]) == pytest.approx(slope * 0.1, abs=0.2)
    assert (min(ticks.values()), max(ticks.values())) == (LEFT, RIGHT)


def test_the_curve_peaks_where_the_values_are() -> None:
    values = np.concatenate([np.full(99, 0.2) + np.linspace(-0.01, 0.01, 99), [0.9]])
    picture = drawn([Distribution("a", values, "--soft")], 0.5)
    (curve,) = (p.attrib["d"] for p in picture.iter("path") if "fill-opacity" in p.attrib)
    points = [tuple(map(float, point.split(" "))) for point in re.findall(r"L([\d.]+ [\d.]+)", curve)]
    peak = min(points, key=lambda point: point[1])[0]
    (median,) = picture.iter("circle")
    assert peak == pytest.approx(float(median.attrib["cx"]), abs=3)


def test_values_that_are_all_alike_and_ridges_without_any_are_drawn() -> None:
    picture = drawn([Distribution("alike", np.ones(3), "--soft"), Distribution("none", np.empty(0), "--right")], 1.0)
    assert "alike" in texts(picture)
    assert "none" not in texts(picture)


def test_negative_numbers_have_a_minus_sign() -> None:
    assert "−0.250" in texts(drawn([Distribution("a", np.array([-1.0, 1.0]), "--soft")], -0.25))
