from __future__ import annotations

import csv
import io

import pytest

from stylesim.core.errors import StylesimError
from stylesim.report.metrics_table import MetricsTable

ROWS = [
    {"encoder": "CSD | ours", "dim": 512, "recall@1": 0.8, "content_recall@1": 0.1},
    {"encoder": "frozen", "dim": 768, "recall@1": 0.65, "content_recall@1": 0.4},
    {"encoder": "<b>random</b>", "dim": 512, "recall@1": 0.80004},
]


def test_markdown_marks_what_reads_best_and_escapes_its_own_signs():
    assert MetricsTable(ROWS).markdown().splitlines() == [
        "| encoder | dim | recall@1 | content_recall@1 |",
        "| --- | ---: | ---: | ---: |",
        r"| CSD \| ours | 512 | **0.800** | 0.100 |",
        "| frozen | 768 | 0.650 | 0.400 |",
        "| <b>random</b> | 512 | **0.800** |  |",
    ]


def test_rows_show_their_distance_from_the_baseline():
    lines = MetricsTable(ROWS, ["encoder", "recall@1", "content_recall@1"], baseline="frozen").markdown().splitlines()
    assert lines[2] == r"| CSD \| ours | **0.800 (+0.150)** | 0.100 (−0.300) |"
    assert lines[3] == "| frozen | 0.650 | 0.400 |"


def test_html_escapes_names_and_draws_each_fraction():
    html = MetricsTable(ROWS, baseline="frozen").html()
    assert "&lt;b&gt;random&lt;/b&gt;" in html
    assert '<td class="metric best" style="--share:80.0">0.800<small class="up">+0.150</small></td>' in html
    assert '<td class="metric" style="--share:10.0">0.100<small class="">−0.300</small></td>' in html  # not a loss


def test_csv_keeps_every_digit():
    read = list(csv.DictReader(io.StringIO(MetricsTable(ROWS).csv())))
    assert float(read[2]["recall@1"]) == 0.80004
    assert read[0]["encoder"] == "CSD | ours"
    assert read[2]["content_recall@1"] == ""


def test_a_single_row_is_not_called_the_best():
    assert "**" not in MetricsTable(ROWS[:1]).markdown()


def test_what_is_not_there_is_refused():
    with pytest.raises(StylesimError, match="at least one row"):
        MetricsTable([])
    with pytest.raises(StylesimError, match="No row has the column 'recal@1'; there are encoder, dim, recall@1"):
        MetricsTable(ROWS, ["encoder", "recal@1"])
    with pytest.raises(StylesimError, match="No row is called 'clip', the baseline"):
        MetricsTable(ROWS, baseline="clip")
