from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import chromium
from conftest import draw
from omegaconf import DictConfig

import stylesim
from stylesim.core.errors import ConfigError, StylesimError
from stylesim.rank import main

HISTOGRAM = ("model=color_histogram", "model.image_size=48", "device=cpu")
NO_COPIES = "~model@copy_encoder"


def write(folder: Path, styles: list[str], first: int = 0) -> Path:
    """Write an image of each style, with contents that count up."""
    folder.mkdir(parents=True)
    for content, style in enumerate(styles, first):
        (folder / f"{content}.png").write_bytes(draw(style, content))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Candidates of 0, 5 and 10 red images in ten, ten red works, and the contents in green."""
    for right in (0, 5, 10):
        write(tmp_path / "runs" / f"right{right}" / "samples", ["red"] * right + ["blue"] * (10 - right))
    write(tmp_path / "works", ["red"] * 10, first=20)
    write(tmp_path / "contents", ["green"] * 10)
    return tmp_path


def run(composed: Callable[..., DictConfig], folders: Path, *more: str) -> tuple[dict[str, float], Path]:
    sources = (f"candidates={folders}/runs/*/samples", f"reference={folders / 'works'}")
    cfg = composed(*sources, *HISTOGRAM, NO_COPIES, *more, config="rank")
    return main(cfg), Path(cfg.run_dir)


def test_folders_are_ranked(
    folders: Path, composed: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    (folders / "runs" / "empty" / "samples").mkdir(parents=True)
    metrics, run_dir = run(composed, folders)
    assert metrics["candidates"] == 3
    assert metrics["candidate/right10/style_similarity"] == metrics["best_style_similarity"]
    with (run_dir / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["candidate"] for row in rows] == ["right10", "right5", "right0"]
    assert {row["style_encoder"] for row in rows} == {rows[0]["style_encoder"]} != {""}
    content = json.loads((run_dir / "ranking.json").read_text(), parse_constant=pytest.fail)
    first = content["candidates"][0]["metrics"]["style_similarity"]
    assert first["low"] <= first["value"] <= first["high"]
    assert first["encoder"] == rows[0]["style_encoder"]
    assert first["works"]["others"] is not None
    assert all(pair["paired"] for pair in content["comparisons"])
    assert any("no image in it" in note for note in content["notes"])
    assert "Copy check not available: it was turned off." in content["notes"]
    assert "right10" in capsys.readouterr().out


def test_weights_that_are_named_must_exist(folders: Path, composed: Callable[..., DictConfig]) -> None:
    with pytest.raises(ConfigError, match="lpips_weights must be an existing file, got /no/such/file"):
        run(composed, folders, "lpips_weights=/no/such/file")


@pytest.mark.slow
def test_content_and_copies_stand_beside_the_style(folders: Path, composed: Callable[..., DictConfig]) -> None:
    sources = (f"candidates={folders}/runs/*/samples", f"reference={folders / 'works'}")
    cfg = composed(*sources, *HISTOGRAM, f"content={folders / 'contents'}", "maps.image_size=64", config="rank")
    cfg.content_encoder.image_size = 64
    cfg.copy_encoder = {"_target_": "stand_in_copy_encoder.ThumbnailCorrelation"}
    main(cfg)
    content = json.loads((Path(cfg.run_dir) / "ranking.json").read_text(), parse_constant=pytest.fail)
    measured = content["candidates"][0]["metrics"]
    assert measured["copy_rate"]["encoder"].startswith("thumbnail")
    assert measured["content_similarity"]["encoder"] == "lite0 pooled"
    assert measured["cas"]["value"] < measured["cas"]["mismatched"], "the same content in another style"
    assert "lpips" not in measured
    assert any(note.startswith("LPIPS was not computed") for note in content["notes"])
    assert any(note.startswith("ArtFID was not computed") for note in content["notes"])
    page = (Path(cfg.run_dir) / "ranking.html").read_text()
    assert "stands in for DINOv2" in page


@pytest.mark.slow
def test_the_table_of_the_page_can_be_sorted(folders: Path, composed: Callable[..., DictConfig]) -> None:
    _, run_dir = run(composed, folders)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto((run_dir / "ranking.html").as_uri())

        def order() -> list[str]:
            return page.locator("table.sortable tbody th").all_inner_texts()

        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        before = order()
        page.get_by_role("button", name="style similarity").click()
        assert order() == before[::-1]
        page.get_by_role("button", name="style similarity").click()
        assert order() == before


def test_missing_and_empty_candidates_are_refused(folders: Path, composed: Callable[..., DictConfig]) -> None:
    (folders / "hollow").mkdir()
    for candidates, message in (("absent", "must exist"), ("hollow", "no image"), ("none*", "matches no folder")):
        cfg = composed(f"candidates={folders / candidates}", f"reference={folders / 'works'}", config="rank")
        with pytest.raises(StylesimError, match=message):
            main(cfg)


def test_the_reference_can_be_a_candidate(folders: Path, composed: Callable[..., DictConfig]) -> None:
    works = folders / "works"
    sources = (f"candidates=[{works},{folders / 'runs/right0/samples'}]", f"reference={works}")
    metrics = main(composed(*sources, *HISTOGRAM, NO_COPIES, config="rank"))
    assert metrics["candidate/works/in_reference"] == 1


def test_python_ranks_folders_as_the_command_does(folders: Path, composed: Callable[..., DictConfig]) -> None:
    metrics, _ = run(composed, folders)
    encoder = stylesim.load_encoder("color_histogram", image_size=48, device="cpu")
    ranking = stylesim.rank(f"{folders}/runs/*/samples", folders / "works", encoder=encoder, device="cpu")
    assert ranking.order == ["right10", "right5", "right0"]
    assert ranking.table["style_similarity"].tolist()[0] == pytest.approx(metrics["best_style_similarity"])
    assert "<table" in ranking._repr_html_()
    with pytest.raises(ConfigError, match="needs an encoder"):
        stylesim.rank([str(folders / "contents")], folders / "works")
