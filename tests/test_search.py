from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from conftest import STYLES, draw
from html_reader import HTMLReader
from omegaconf import DictConfig

from stylesim import embed, ingest
from stylesim.core.errors import ConfigError, DataError
from stylesim.search import main

HISTOGRAM = ("model=color_histogram", "model.image_size=48", "device=cpu")
HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def run(composed: Callable[..., DictConfig], tmp_path: Path) -> Callable[..., dict[str, float]]:
    """Search a database of 24 works in three styles for three images of other contents."""
    for style in STYLES:
        for folder, contents in (("works", range(8)), ("queries", range(20, 21))):
            (tmp_path / folder / style).mkdir(parents=True)
            for content in contents:
                (tmp_path / folder / style / f"{content}.png").write_bytes(draw(style, content))
    ids = [f"works/{style}/{content}.png" for style in STYLES for content in range(8)]
    periods = [f"{1890 + row % 3}s" for row in range(23)] + [HOSTILE]
    pd.DataFrame({"id": ids, "period": periods}).to_csv(tmp_path / "m.csv", index=False)
    options = (f"db={tmp_path / 'works.db'}", f"images={tmp_path / 'works'}", f"metadata={tmp_path / 'm.csv'}")
    ingest.main(composed(*options, *HISTOGRAM, config="ingest"))

    def run(*more: str, queries: Path = tmp_path / "queries") -> dict[str, float]:
        cfg = composed(f"db={tmp_path / 'works.db'}", f"queries={queries}", *more, config="search")
        return main(cfg)

    return run


def test_the_nearest_works_are_in_table_json_and_page(
    run: Callable[..., dict[str, float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = run("k=5", *HISTOGRAM)
    assert (metrics["queries"], metrics["neighbours"]) == (3, 15)
    assert 0.9 < metrics["mean_similarity@1"] <= 1
    table = pd.read_csv(tmp_path / "run" / "neighbours.csv")
    assert list(table.columns[:6]) == ["query", "rank", "similarity", "id", "tags", "content"]
    assert all(table["query"].str.split("/").str[1] == table["tags"])
    content = json.loads((tmp_path / "run" / "neighbours.json").read_text())
    assert [entry["query"] for entry in content["queries"]] == [f"queries/{style}/20.png" for style in sorted(STYLES)]
    assert content["queries"][0]["neighbours"][0]["tags"] == ["blue"]
    page = HTMLReader((tmp_path / "run" / "search.html").read_text())
    assert page.images == 3 + 15
    assert "3 images were compared in style with the 24 works of" in page.text
    assert "by colour histogram" in page.text.lower()
    assert "A tag in common" in page.text
    printed = capsys.readouterr().out
    assert "queries/blue/20.png\n  1. " in printed
    assert re.search(
        r"similarities by colour histogram.*: [01]\.\d+ for works with a tag in common, 0\.", printed, re.I
    )


def test_a_filter_restricts_the_works_and_descriptors_need_no_model(
    run: Callable[..., dict[str, float]], composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    embed.main(composed(f"images={tmp_path / 'queries'}", f"out={tmp_path / 'set'}", *HISTOGRAM, config="embed"))
    quoted = HOSTILE.replace("'", "''")
    where = f"period = '{quoted}' or period = '1891s' and tags contains 'red'"
    cfg = composed(f"db={tmp_path / 'works.db'}", f"queries={tmp_path / 'set'}", "readout=csls", config="search")
    cfg.where = where
    assert main(cfg)["neighbours"] == 3 * 4
    page = HTMLReader((tmp_path / "run" / "search.html").read_text())
    assert where in page.text  # escaped
    assert "compared in style with the 4 works that the filter admits" in page.text
    assert "A tag in common" not in page.text  # CSLS is no cosine


def test_a_filter_that_admits_nothing_is_no_error(
    run: Callable[..., dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("where='period = \\'x\\''", *HISTOGRAM) == {"queries": 3, "neighbours": 0}
    assert "the filter admits no work" in capsys.readouterr().out


def test_what_cannot_be_searched_is_refused(run: Callable[..., dict[str, float]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such column"):
        run("where='artist = 1'", "model=csd_vitl")
    with pytest.raises(DataError, match="of another encoder"):
        run("model=palette", "device=cpu")
    with pytest.raises(DataError, match="has no index"):
        run("exact=false", *HISTOGRAM)
    with pytest.raises(ConfigError, match="queries"):
        run(queries=tmp_path / "absent")


def test_a_database_that_does_not_exist_is_refused_before_anything_is_loaded(
    composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    cfg = composed(f"db={tmp_path / 'none.db'}", "queries=data/stylecross/unseen_styles", config="search")
    with pytest.raises(ConfigError, match=r"db must be a style database, got .*none\.db.*stylesim ingest"):
        main(cfg)
