from __future__ import annotations

import pandas as pd

from stylesim.report.tables.text_tables import escape_latex, latex_table, markdown_table


def test_markdown_escapes_pipes_and_keeps_numbers_as_they_are_written() -> None:
    table = pd.DataFrame([["a|b", "**0.800**", "1,000"], ["c\nd", "", "0.10"]], columns=["name", "x|y", "n"])
    assert markdown_table(table).splitlines() == [
        r"| name   |      x\|y |     n |",
        "|:-------|----------:|------:|",
        r"| a\|b   | **0.800** | 1,000 |",
        "| c d    |           |  0.10 |",
    ]


def test_markdown_of_a_table_without_rows_has_its_header() -> None:
    assert markdown_table(pd.DataFrame(columns=["name", "x"])).startswith("| name   | x   |\n")


def test_latex_groups_columns_of_two_levels() -> None:
    columns = pd.MultiIndex.from_tuples([("", "encoder"), ("A", "x"), ("A", "y"), ("B", "x")])
    lines = latex_table(pd.DataFrame([["clip", r"\textbf{1}", "2", "3"]], columns=columns)).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrr}"
    assert r"\multicolumn{2}{c}{A}" in lines[2]
    assert lines[3] == r"encoder & x & y & x \\"
    assert lines[5] == r"clip & \textbf{1} & 2 & 3 \\"


def test_latex_escapes_every_special_character() -> None:
    assert escape_latex(r"50 % of a_b & {c} #1 $x ~ ^ \d") == (
        r"50 \% of a\_b \& \{c\} \#1 \$x \textasciitilde{} \textasciicircum{} \textbackslash{}d"
    )
