from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image
from sweep_files import write_run, write_sweep

from stylesim.report.tables.benchmark_export import write_benchmark


def test_all_files_have_the_same_numbers(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    text = write_benchmark(sweep)
    with (sweep / "benchmark.csv").open() as file:
        lines = {(line["encoder"], line["set"], line["metric"]): line for line in csv.DictReader(file)}
    line = lines["csd_vitl", "wikiart", "paper_map@1"]
    assert float(line["ours"]) - float(line["paper"]) == pytest.approx(float(line["difference"]))
    assert float(line["low"]) <= float(line["ours"]) <= float(line["high"])
    markdown = (sweep / "benchmark.md").read_text()
    assert markdown in text
    assert "| **70.0** (64.6, +5.4) |" in markdown
    assert "- vgg_gram, wikiart: The weights of VGG16" in markdown
    latex = (sweep / "benchmark.tex").read_text()
    assert r"\multicolumn{6}{c}{wikiart} & \multicolumn{5}{c}{domainnet}" in latex
    assert r"\textbf{70.0} {\scriptsize (64.6)}" in latex
    assert latex.count(r"\\") == 2 + 13
    assert all(row.count("&") == 11 for row in latex.splitlines() if row.startswith(("CSD", "GDA", "color")))
    with Image.open(sweep / "benchmark.png") as image:
        assert min(image.size) > 500


def test_sweep_in_which_every_run_failed_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "ink_box", "shards", None, error="The folder /x does not exist.")
    assert "- ink_box, shards: The folder /x does not exist." in write_benchmark(tmp_path)
