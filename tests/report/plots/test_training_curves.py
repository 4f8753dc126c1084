from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stylesim.core.errors import DataError
from stylesim.report.plots.training_curves import read_training_log, training_curves


def write_log(file: Path, steps: int = 100) -> Path:
    lines = ["epoch,step,samples_seen,train/loss,train/ssl,lr-head,probe/<set>/recall@1,probe/<set>/precision@10"]
    for i in range(steps):
        lines.append(f"0,{i},{i * 64},{5 / (i + 1)},{4 / (i + 1)},0.1,,")
        lines += [f"0,{i},,,,,{i / steps},0.5"] if i % 50 == 0 else []
    file.write_text("\n".join(lines) + "\n")
    return file


def test_rows_without_a_count_take_that_of_their_step_and_the_last_of_repeated_steps_counts(tmp_path: Path):
    log = write_log(tmp_path / "metrics.csv")
    log.write_text(log.read_text() + "0,50,3200,99.0,9.0,0.1,,\n")  # a resumed run logs step 50 again
    table = read_training_log(log)
    assert table.index.name == "samples_seen"
    assert table.index.is_unique
    assert table.loc[3200.0, "train/loss"] == 99.0
    assert table.loc[3200.0, "probe/<set>/recall@1"] == 0.5


def test_each_kind_of_metric_has_a_panel_in_the_colours_of_the_page(tmp_path: Path):
    html = training_curves(write_log(tmp_path / "metrics.csv", 1500))
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
    clip_ids = [name for name in re.findall(r' id="([^"]*)"', html) if re.match(r"p[0-9a-f]{8}", name)]
    assert len(set(clip_ids)) == len(clip_ids), "two drawings on a page must not share clip paths"
    assert html == training_curves(tmp_path / "metrics.csv")


def test_run_of_a_single_step_is_drawn(tmp_path: Path):
    assert "<svg" in training_curves(write_log(tmp_path / "metrics.csv", 1))


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n", "step,train/loss\n"])
def test_file_that_is_not_a_training_log_is_refused(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(DataError, match="is not a training log"):
        training_curves(tmp_path / "metrics.csv")
