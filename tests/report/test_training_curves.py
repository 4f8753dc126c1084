from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stylesim.core.errors import StylesimError
from stylesim.report.training_curves import curves_html, read_training_log


def write_log(file: Path, steps: int = 100) -> Path:
    lines = ["epoch,step,samples_seen,train/loss,train/ssl,lr-head,probe/<set>/recall@1,probe/<set>/precision@10"]
    for i in range(steps):
        lines.append(f"0,{i},{i * 64},{5 / (i + 1)},{4 / (i + 1)},0.1,,")
        lines += [f"0,{i},,,,,{i / steps},0.5"] if i % 50 == 0 else []
    file.write_text("\n".join(lines) + "\n")
    return file


def test_rows_without_a_count_take_that_of_their_step_and_repeated_steps_the_last_value(tmp_path: Path):
    log = write_log(tmp_path / "metrics.csv")
    log.write_text(log.read_text() + "0,50,3200,99.0,9.0,0.1,,\n")  # a resumed run logs step 50 again
    table = read_training_log(log)
    assert table.index.name == "samples_seen"
    assert table.index.is_unique
    assert table.loc[3200.0, "train/loss"] == 99.0
    assert table.loc[3200.0, "probe/<set>/recall@1"] == 0.5


def test_every_kind_of_figure_has_a_panel_drawn_in_the_colours_of_the_page(tmp_path: Path):
    html = curves_html(write_log(tmp_path / "metrics.csv", 1500))
    titles = re.findall("<figcaption>(.*?)</figcaption>", html)
    assert titles == ["Loss", "Probe: &lt;set&gt;", "Learning rate"]
    assert "precision@10" not in html

    drawings = [ElementTree.fromstring(svg) for svg in re.findall("<svg.*?</svg>", html, re.DOTALL)]
    assert len(drawings) == 3
    assert all("width" not in drawing.attrib and "viewBox" in drawing.attrib for drawing in drawings)
    words = {text.text for drawing in drawings for text in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"samples seen", "loss", "ssl"} <= words
    assert "currentColor" in html
    assert "#010203" not in html
    names = re.findall(r' id="([^"]*)"', html)
    clips = [name for name in names if re.match(r"p[0-9a-f]{8}", name)]
    assert len(set(clips)) == len(clips)  # drawings on one page must not clip each other
    assert html == curves_html(tmp_path / "metrics.csv")


def test_a_run_of_a_single_step_is_drawn(tmp_path: Path):
    assert "<svg" in curves_html(write_log(tmp_path / "metrics.csv", 1))


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n", "step,train/loss\n"])
def test_what_is_no_log_is_refused(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(StylesimError, match="no log to draw curves from"):
        curves_html(tmp_path / "metrics.csv")
