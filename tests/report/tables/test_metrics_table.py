from __future__ import annotations

import csv
import io
import re

import pytest

from stylesim.core.errors import DataError
from stylesim.report.html_page import render
from stylesim.report.tables.metrics_table import MetricsTable

ROWS = [
    {"encoder": "CSD | ours", "dim": 512, "recall@1": 0.8, "content_recall@1": 0.1},
    {"encoder": "frozen", "dim": 768, "recall@1": 0.65, "content_recall@1": 0.4},
    {"encoder": "<b>random</b>", "dim": 512, "recall@1": 0.80004},
]


def cells(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split(" | ")] for line in markdown.strip().splitlines()]


def test_markdown_marks_the_best_values_and_escapes_pipes():
    assert cells(MetricsTable(ROWS).markdown())[2:] == [
        [r"| CSD \| ours", "512", "**0.800**", "0.100 |"],
        ["| frozen", "768", "0.650", "0.400 |"],
        ["| <b>random</b>", "512", "**0.800**", "|"],
    ]


def test_rows_show_their_difference_from_the_baseline():
    table = MetricsTable(ROWS, ["encoder", "recall@1", "content_recall@1"], baseline="frozen")
    assert cells(table.markdown())[2:4] == [
        [r"| CSD \| ours", "**0.800 (+0.150)**", "0.100 (−0.300) |"],
        ["| frozen", "0.650", "0.400 |"],
    ]


def test_html_escapes_names_and_draws_each_fraction_as_a_bar():
    html = render("metrics_table.html", table=MetricsTable(ROWS, baseline="frozen"))
    assert "&lt;b&gt;random&lt;/b&gt;" in html
    assert '<td class="metric best" style="--share:80.0">0.800<small class="up">+0.150</small></td>' in html
    # Less content is no loss, so the difference has no direction.
    assert '<td class="metric" style="--share:10.0">0.100<small class="">−0.300</small></td>' in html


def test_columns_without_values_are_not_shown():
    rows = [{"encoder": "a", "recall@1": 0.5, "map@1": None}, {"encoder": "b", "recall@1": 0.4, "map@1": None}]
    table = MetricsTable(rows)
    assert table.shown_columns == ["encoder", "recall@1"]
    assert table.csv().splitlines()[0] == "encoder,recall@1,map@1"


def test_columns_of_a_retrieval_set_are_grouped_and_only_fractions_have_bars():
    row = {"encoder": "a", "val/recall@1": 0.5, "val/content": 0.2, "test_grey/difference": -0.1, "other": "b"}
    html = render("metrics_table.html", table=MetricsTable([row]))
    assert re.findall("<th[^>]*>[^<]*</th>", html)[:9] == [
        '<th colspan="1"></th>',
        '<th colspan="2" class="group">val</th>',
        '<th colspan="1" class="group">test grey</th>',
        '<th colspan="1" class="group"></th>',
        '<th class="text">encoder</th>',
        "<th>recall@1</th>",
        "<th>content</th>",
        "<th>difference</th>",
        '<th class="text">other</th>',
    ]
    assert html.count("--share") == 2
    assert "<td>−0.100</td>" in html


def test_csv_keeps_every_digit():
    read = list(csv.DictReader(io.StringIO(MetricsTable(ROWS).csv())))
    assert float(read[2]["recall@1"]) == 0.80004
    assert read[0]["encoder"] == "CSD | ours"
    assert read[0]["dim"] == "512"
    assert read[2]["content_recall@1"] == ""


def test_single_row_is_not_marked_as_the_best():
    assert "**" not in MetricsTable(ROWS[:1]).markdown()


def test_empty_table_unknown_column_and_unknown_baseline_are_refused():
    with pytest.raises(DataError, match="at least one row"):
        MetricsTable([])
    with pytest.raises(DataError, match="No row has the column 'recal@1'; the columns are encoder, dim, recall@1"):
        MetricsTable(ROWS, ["encoder", "recal@1"])
    with pytest.raises(DataError, match=r"The baseline 'clip' is not a row; the rows are CSD | ours, frozen"):
        MetricsTable(ROWS, baseline="clip")
