from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_reader import HTMLReader
from PIL import Image

from stylesim.evaluation.evaluate_descriptors import RetrievalResult, evaluate_descriptors
from stylesim.evaluation.retrieval_spec import RetrievalSpec
from stylesim.report.pages.run_report import write_run_report
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table

HOSTILE = "<b>&"
LABELS = (HOSTILE, "ink")


class Logger:
    """Keeps what the report logs, as the logger of Weights & Biases does."""

    def __init__(self) -> None:
        self.logged: dict[str, Any] = {}

    def log_image(self, key: str, images: list[Image.Image]) -> None:
        self.logged[key] = images

    def log_table(self, key: str, columns: list[str], data: list[list[Any]]) -> None:
        self.logged[key] = [columns, *data]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images of each label."""
    for label in LABELS:
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (30, 20), (80 * i, 0, 0)).save(tmp_path / "images" / label / f"{i}.png")
    return tmp_path / "images"


def evaluated(images: Path, angles: list[float]) -> RetrievalResult:
    """Retrieval among the images, whose descriptors are directions in the plane."""
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    names = [(label, i) for label in LABELS for i in range(3)]
    items = item_table((f"images/{label}/{i}.png", [label], None, "", 0) for label, i in names)
    meta = {"encoder": {"name": HOSTILE, "weights": "none"}, "damaged": [[f"images/{HOSTILE}/3.png", "truncated"]]}
    return evaluate_descriptors(DescriptorSet(vectors, items, meta), None, RetrievalSpec([str(images)], ks=(1, 5)))


def test_report_shows_metrics_neighbours_errors_and_provenance(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, logger = tmp_path / "run", Logger()
    run_dir.mkdir()
    (run_dir / "provenance.json").write_text(json.dumps({"command": HOSTILE, "versions": {"torch": "2.9"}}))
    (run_dir / "config.yaml").write_text(f"model: {HOSTILE}\n")
    (run_dir / "metrics.csv").write_text("step,samples_seen,train/loss\n1,64,0.5\n2,128,0.4\n")
    sharp = evaluated(images, [0.0, 0.1, 0.2, 1.0, 1.1, 1.2])
    confused = evaluated(images, [0.0, 0.1, 0.9, 0.05, 1.1, 1.2])
    results = {"model": {HOSTILE: confused}, "control": {HOSTILE: sharp}}
    page = write_run_report(run_dir, results, loggers=[logger])

    reader = HTMLReader(page.read_text())
    assert "<b>" not in page.read_text()
    wrong = int((~confused.relevance[:, 0]).sum())
    assert f"Errors: {wrong} of 6 nearest neighbours have a wrong label" in reader.text
    assert "best control control 100.0%" in reader.text
    for text in ("Training curves", "torch 2.9", f"model: {HOSTILE}", f"images/{HOSTILE}/3.png"):
        assert text in reader.text
    assert reader.images == (6 + wrong) * 6, "each query with five neighbours, failures once more"
    table = list(csv.DictReader((run_dir / "table.csv").open()))
    assert float(table[1][f"{HOSTILE}/recall@1"]) == 1.0
    assert table[0]["encoder"] == "model"
    assert {"map@5", "queries"} <= {column.rpartition("/")[2] for column in table[0]}
    errors = list(csv.DictReader((run_dir / "errors" / f"{HOSTILE}.csv").open()))
    assert {line["label"] for line in errors} == set(LABELS)
    for folder in ("errors", "galleries"):
        with Image.open(run_dir / folder / f"{HOSTILE}.png") as image:
            assert min(image.size) > 200
    assert f"gallery/{HOSTILE}" in logger.logged
    assert logger.logged["metrics"][0] == ["encoder", f"{HOSTILE}/recall@1"]
    assert "| control" in capsys.readouterr().out


def test_summary_of_several_sets_has_a_line_for_each(images: Path, tmp_path: Path) -> None:
    sharp = evaluated(images, [0.0, 0.1, 0.2, 1.0, 1.1, 1.2])
    page = write_run_report(tmp_path, {"model": {"first_set": sharp, "second": sharp}})
    text = HTMLReader(page.read_text()).text
    assert "right style for\nfirst set: 100.0% of 6 queries (chance 40.0%)\nsecond: 100.0%" in text
    assert "Errors" not in text, "every nearest neighbour is right"
    assert not (tmp_path / "errors").exists()
