from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import draw
from html_reader import HTMLReader
from omegaconf import DictConfig
from PIL import Image, ImageDraw

import stylesim
from stylesim.attribute import main
from stylesim.core.errors import ConfigError, DataError
from stylesim.runtime import embedding_run

HISTOGRAM = ("model=color_histogram", "model.image_size=48", "device=cpu")
STAND_IN = {"_target_": "stand_in_copy_encoder.ThumbnailCorrelation"}
HUES = [(hue, 80 + 10 * (hue // 40), 90) for hue in range(0, 360, 36)]


def write_image(path: Path, style: int, content: int) -> None:
    """An image whose style is a hue, and whose content is where its shapes are."""
    import numpy as np

    rng = np.random.default_rng(1000 * style + content)
    colour = f"hsv({HUES[style][0]}, {HUES[style][1] - rng.integers(20)}%, {HUES[style][2] - rng.integers(20)}%)"
    image = Image.new("RGB", (64, 64), "white")
    for _ in range(5):
        x, y = rng.integers(0, 44, 2).tolist()
        ImageDraw.Draw(image).ellipse((x, y, x + 8 + rng.integers(12), y + 8 + rng.integers(12)), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Eight works of each of ten styles, and images of five of them, one of which copies a work."""
    folder = tmp_path_factory.mktemp("attribute")
    for style in range(10):
        for content in range(8):
            write_image(folder / "works" / f"s{style}" / f"{content}.png", style, content)
    for style in range(5):
        write_image(folder / "made" / f"{style}.png", style, 50)
    (folder / "made" / "copy.png").write_bytes((folder / "works" / "s3" / "2.png").read_bytes())
    (folder / "made" / "broken.png").write_bytes(b"nothing")
    return folder / "made", folder / "works"


def run(
    composed: Callable[..., DictConfig], sides: tuple, *more: str, copies: bool = True, name: str = "run"
) -> tuple[dict, Path]:
    cfg = composed(f"queries={sides[0]}", f"gallery={sides[1]}", *HISTOGRAM, *more, config="attribute")
    cfg.run_dir = str(Path(cfg.run_dir) / name)
    cfg.copy_encoder = STAND_IN if copies else cfg.copy_encoder
    return main(cfg), Path(cfg.run_dir)


def test_folders_are_attributed_and_checked_for_copies(
    sides: tuple[Path, Path], composed: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, run_dir = run(composed, sides)
    assert metrics["images"] == 6
    assert metrics["labels"] == 10
    assert metrics["accuracy"] > 0.7
    with (run_dir / "attribution.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("query", "rank", "label", "score", "low", "high", "margin", "p_value", "works", "nearest"),
        "nearest_similarity",
    ]
    assert {row["label"] for row in rows if row["query"] == "made/2.png" and row["rank"] == "1"} == {"s2"}
    content = json.loads((run_dir / "attribution.json").read_text(), parse_constant=pytest.fail)  # no NaN
    assert content["copy_check"]["available"]
    images = {image["query"]: image for image in content["images"]}
    assert images["made/copy.png"]["copy"]["copied"] == "works/s3/2.png"
    assert images["made/copy.png"]["identical"] == "works/s3/2.png"
    assert set(images["made/2.png"]["ranking"][0]) >= {"pooled_cosine", "nearest_csls_label_aware", "low", "p_value"}
    assert "legal" in content["legal"]
    page = HTMLReader((run_dir / "attribution.html").read_text())
    assert "Neither the attribution nor the copy check is a legal finding" in page.text
    assert "broken.png" in page.text
    assert page.images >= 6 * (1 + 5 + 2)
    said = capsys.readouterr().out
    assert "made/2.png: " in said
    assert "measured at 10 labels with a median of 8 works" in said


@pytest.mark.slow
def test_the_copy_check_never_changes_the_attribution(sides: tuple, composed: Callable[..., DictConfig]) -> None:
    _, run_dir = run(composed, sides)
    with_copies = (run_dir / "attribution.csv").read_text()
    _, run_dir = run(composed, sides, "copy_candidate=0.1", "copy_near_duplicate=0.2", name="lower")
    assert (run_dir / "attribution.csv").read_text() == with_copies
    _, run_dir = run(composed, sides, copies=False, name="without")
    assert (run_dir / "attribution.csv").read_text() == with_copies
    assert not (run_dir / "copies.csv").exists()


def test_missing_weights_of_the_copy_encoder_are_said_and_stop_nothing(
    sides: tuple, composed: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, run_dir = run(composed, sides, copies=False)
    assert "share_flagged_copies" not in metrics
    content = json.loads((run_dir / "attribution.json").read_text())
    assert not content["copy_check"]["available"]
    assert "sscd" in content["copy_check"]["reason"].lower()
    assert all("Copy check not available" in image["reading"] for image in content["images"])
    assert "Copy check not available." in HTMLReader((run_dir / "attribution.html").read_text()).text
    assert "copy check not available" in capsys.readouterr().out


def test_weights_that_cannot_be_downloaded_are_said_too(sides: tuple, composed: Callable[..., DictConfig]) -> None:
    cfg = composed(f"queries={sides[0]}", f"gallery={sides[1]}", *HISTOGRAM, config="attribute")
    cfg.copy_encoder = {"_target_": "stand_in_copy_encoder.without_weights"}
    main(cfg)
    content = json.loads((Path(cfg.run_dir) / "attribution.json").read_text())
    assert content["copy_check"]["reason"].endswith("The weights of the stand-in cannot be downloaded.")


@pytest.mark.slow
def test_descriptors_are_attributed_without_a_model(
    sides: tuple, composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, run_dir = run(composed, sides)
    folders = tuple(run_dir / "descriptors" / side for side in ("queries", "gallery"))
    monkeypatch.setattr(embedding_run, "load_model", lambda cfg: pytest.fail("a model was loaded"))
    again, run_dir = run(composed, folders, name="again")
    assert again == metrics
    assert "data:image/webp" in (run_dir / "attribution.html").read_text()


@pytest.mark.slow
def test_a_style_database_is_a_gallery(sides: tuple, composed: Callable[..., DictConfig], tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    import pandas as pd

    from stylesim import StyleDatabase
    from stylesim.retrieval.descriptor_set import DescriptorSet

    metrics, run_dir = run(composed, sides)
    works = DescriptorSet.load(run_dir / "descriptors" / "gallery")
    thumbnails = [(sides[1].parent / id).read_bytes() for id in works.ids]
    columns = {
        "id": works.ids,
        "thumbnail": thumbnails,
        "licence": "CC0",
        "title": [f"Title of {id}" for id in works.ids],
    }
    with StyleDatabase.create(tmp_path / "works.db", works.meta, works.descriptors.shape[1]) as database:
        database.add(works, pd.DataFrame(columns))
    again, run_dir = run(composed, (run_dir / "descriptors" / "queries", tmp_path / "works.db"), name="database")
    assert again == metrics
    content = json.loads((run_dir / "attribution.json").read_text())
    copies = {image["query"]: image["copy"] for image in content["images"]}
    assert copies["made/copy.png"]["work"] == {"title": "Title of works/s3/2.png", "licence": "CC0"}
    assert "Title of works/s3/2.png" in (run_dir / "attribution.html").read_text()


def test_titles_licences_and_addresses_of_works_are_shown_and_escaped(
    sides: tuple, composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    rows = [
        f"{path},{path.parent.name},<b>{path.stem}</b>,CC0,javascript:alert(1)"
        for path in sorted(sides[1].rglob("*.png"))
    ]
    (tmp_path / "works.csv").write_text("\n".join(["path,label,title,licence,url", *rows]))
    _, run_dir = run(composed, (sides[0], tmp_path / "works.csv"))
    text = (run_dir / "attribution.html").read_text()
    assert "<b>2</b>" not in text
    assert "&lt;b&gt;2&lt;/b&gt;" in text
    assert 'href="javascript' not in text
    assert "<b>2</b>" in (run_dir / "copies.csv").read_text()


def test_wrong_values_are_refused_before_a_model_is_loaded(
    sides: tuple, composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_run, "load_model", lambda cfg: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match="alpha must be between 0 and 1"):
        run(composed, sides, "alpha=2.0")
    with pytest.raises(ConfigError, match="gallery must exist"):
        run(composed, (sides[0], "/nowhere"))


def test_a_gallery_without_labels_is_refused(sides: tuple, composed: Callable[..., DictConfig], tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for number in range(3):
        (tmp_path / "flat" / f"{number}.png").write_bytes(draw("red", number))
    with pytest.raises(DataError, match="at least two labels"):
        run(composed, (sides[0], tmp_path / "flat"))


def test_the_function_stays_callable_beside_the_command_of_its_name() -> None:
    assert callable(stylesim.attribute)
    assert stylesim.attribute.__module__ == "stylesim.scoring.attribution.attributor"
