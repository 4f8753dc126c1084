from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from stylesim.report.plots.score_scale import LAYOUTS, Distribution, Layout, score_scale


def drawings(
    distributions: list[Distribution], value: float, interval: tuple[float, float] | None = None
) -> list[tuple[Layout, ElementTree.Element]]:
    """The drawing for each layout, parsed as XML."""
    svgs = re.findall("<svg.*?</svg>", score_scale(distributions, value, interval), re.DOTALL)
    return list(zip(LAYOUTS, map(ElementTree.fromstring, svgs), strict=True))


def texts(svg: ElementTree.Element) -> dict[str, float]:
    return {text.text or "": float(text.attrib["x"]) for text in svg.iter("text")}


def by_class(svg: ElementTree.Element, name: str) -> dict[str, str]:
    (element,) = (element for element in svg.iter() if element.attrib.get("class") == name)
    return element.attrib


def test_score_and_interval_are_drawn_to_the_scale_of_the_ticks() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    for layout, svg in drawings([Distribution("works & more", values, "--correct")], 0.6, (0.55, 0.65)):
        shown = texts(svg)
        assert {"works & more", "0.600", "95 %: 0.550 – 0.650"} <= shown.keys()
        ticks = {float(text): x for text, x in shown.items() if re.fullmatch(r"[\d.]+", text) and text != "0.600"}
        slope, start = np.polyfit(list(ticks), list(ticks.values()), 1)
        marker = float(by_class(svg, "marker")["d"][1:].split(" ")[0])
        assert marker == pytest.approx(start + slope * 0.6, abs=0.1)
        assert float(by_class(svg, "interval")["width"]) == pytest.approx(slope * 0.1, abs=0.2)
        lines = [float(path.attrib["d"][1:].split(" ")[0]) for path in svg.iter("path") if path.get("class") == "tick"]
        assert (min(lines), max(lines)) == (layout.left, layout.right)


def test_density_peaks_where_the_values_are() -> None:
    values = np.concatenate([np.full(99, 0.2) + np.linspace(-0.01, 0.01, 99), [0.9]])
    for _, svg in drawings([Distribution("a", values, "--soft")], 0.5):
        outline = by_class(svg, "density")["d"]
        points = [tuple(map(float, point.split(" "))) for point in re.findall(r"L([\d.]+ [\d.]+)", outline)]
        peak = min(points, key=lambda point: point[1])[0]
        assert peak == pytest.approx(float(by_class(svg, "median")["cx"]), abs=3)


def test_equal_values_are_drawn_and_empty_distributions_left_out() -> None:
    equal, empty = Distribution("equal", np.ones(3), "--soft"), Distribution("empty", np.empty(0), "--correct")
    for _, svg in drawings([equal, empty], 1.0):
        assert "equal" in texts(svg)
        assert "empty" not in texts(svg)


def test_negative_numbers_have_a_minus_sign() -> None:
    for _, svg in drawings([Distribution("a", np.array([-1.0, 1.0]), "--soft")], -0.25):
        assert "−0.250" in texts(svg)
