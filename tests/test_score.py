from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import STYLES, draw
from omegaconf import DictConfig

from stylesim import embed, score
from stylesim.core.errors import StylesimError
from stylesim.runtime import embedding_run

HISTOGRAM = ("model=color_histogram", "model.image_size=48", "device=cpu")


def write_images(folder: Path, contents: range, styles: list[str]) -> Path:
    for style in styles:
        (folder / style).mkdir(parents=True)
        for content in contents:
            (folder / style / f"{content}.png").write_bytes(draw(style, content))
    return folder


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """Generated images of two styles, one of them damaged, and reference works of three styles."""
    generated = write_images(tmp_path / "made" / "images", range(4), ["red", "blue"])
    (generated / "red" / "broken.png").write_bytes(b"nothing")
    return generated, write_images(tmp_path / "real" / "images", range(4, 10), list(STYLES))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_folders_with_the_same_labels_are_scored_by_label(
    sides: tuple[Path, Path], composed: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = composed(f"generated={sides[0]}", f"reference={sides[1]}", "neighbours=3", *HISTOGRAM, config="score")
    metrics = score.main(cfg)
    run_dir = Path(cfg.run_dir)
    assert metrics["gss/low"] <= metrics["gss"] <= metrics["gss/high"]
    assert metrics["works/different"] < metrics["works/others"] < metrics["works/same"]
    assert metrics["discrimination"] > 0
    assert metrics["label/red/discrimination"] > 0
    content = json.loads((run_dir / "score.json").read_text(), parse_constant=pytest.fail)  # no NaN in it
    assert content["metrics"]["gss"] == metrics["gss"]
    assert content["images"] == {"generated": 8, "reference": 18}
    assert [name for name, _ in content["damaged"]["generated"]] == ["images/red/broken.png"]
    assert content["matched_labels"]
    images = rows(run_dir / "per_image.csv")
    assert len(images) == 8
    assert all(row["nearest_label"] == row["label"] for row in images)
    assert len(rows(run_dir / "pairs.csv")) == 8 * 3
    assert {row["label"] for row in rows(run_dir / "labels.csv")} == {"red", "blue"}
    assert "to the reference works of the same label" in capsys.readouterr().out
    page = (run_dir / "score.html").read_text()
    assert page.count("data:image/webp") == 8 * 4, "each generated image and its three nearest works"
    assert "broken.png" in page


@pytest.mark.slow
def test_descriptors_are_scored_without_a_model_and_still_shown(
    sides: tuple[Path, Path], composed: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = composed(f"generated={sides[0]}", f"reference={sides[1]}", *HISTOGRAM, config="score")
    metrics = score.main(cfg)
    for name, folder in zip(("a", "b"), sides, strict=True):
        embed.main(composed(f"images={folder}", f"out={tmp_path / name}", *HISTOGRAM, config="embed"))
    (Path(cfg.run_dir) / "score.html").unlink()

    monkeypatch.setattr(embedding_run, "load_model", lambda cfg: pytest.fail("a model was loaded"))
    again = composed(f"generated={tmp_path / 'a'}", f"reference={tmp_path / 'b'}", "model=csd_vitl", config="score")
    assert score.main(again) == metrics
    assert "data:image/webp" in (Path(again.run_dir) / "score.html").read_text()


def test_missing_images_leave_their_places_empty(
    sides: tuple[Path, Path], composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    embed.main(composed(f"images={sides[0]}", f"out={tmp_path / 'a'}", *HISTOGRAM, config="embed"))
    (tmp_path / "made").rename(tmp_path / "moved")
    cfg = composed(f"generated={tmp_path / 'a'}", f"reference={sides[1]}", *HISTOGRAM, config="score")
    score.main(cfg)
    assert 'class="lost"' in (Path(cfg.run_dir) / "score.html").read_text()


def test_descriptors_of_another_encoder_are_refused(
    sides: tuple[Path, Path], composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    embed.main(composed(f"images={sides[0]}", f"out={tmp_path / 'a'}", *HISTOGRAM, config="embed"))
    other = composed(f"generated={tmp_path / 'a'}", f"reference={sides[1]}", "model=ink_box", config="score")
    with pytest.raises(StylesimError, match="descriptors of different encoders cannot be compared"):
        score.main(other)


def test_a_score_replaces_the_one_of_its_run_folder(
    sides: tuple[Path, Path], composed: Callable[..., DictConfig]
) -> None:
    score.main(composed(f"generated={sides[0]}", f"reference={sides[1]}", *HISTOGRAM, config="score"))
    reds = [f"{side}={folder / 'red'}" for side, folder in zip(("generated", "reference"), sides, strict=True)]
    cfg = composed(*reds, *HISTOGRAM, config="score")
    score.main(cfg)
    assert len(rows(Path(cfg.run_dir) / "per_image.csv")) == 4
    assert not (Path(cfg.run_dir) / "labels.csv").exists(), "it was of the former score"


def test_works_without_labels_are_compared_with_each_other(tmp_path: Path, composed: Callable[..., DictConfig]) -> None:
    generated = write_images(tmp_path / "made", range(3), ["red"]) / "red"
    works = write_images(tmp_path / "real", range(3, 8), ["red"]) / "red"
    cfg = composed(f"generated={generated}", f"reference={works}", *HISTOGRAM, config="score")
    metrics = score.main(cfg)
    assert "works/others" in metrics
    assert "works/same" not in metrics
    content = json.loads((Path(cfg.run_dir) / "score.json").read_text())
    assert content["works_of_reference"]["different"] is None
    assert content["labels"] == []
    assert not (Path(cfg.run_dir) / "labels.csv").exists()


def test_shards_are_scored_by_the_tags_that_label_names(
    shards: Path, composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    sources = [f"generated={shards / 'validation'}", f"reference={shards / 'train'}", "label=set:*"]
    metrics = score.main(composed(*sources, *HISTOGRAM, config="score"))
    assert metrics["label/set:red/discrimination"] > 0


@pytest.mark.slow
def test_readouts_are_chosen_by_name(sides: tuple[Path, Path], composed: Callable[..., DictConfig]) -> None:
    score.main(composed(f"generated={sides[0]}", f"reference={sides[1]}", *HISTOGRAM, config="score"))
    folder = Path(composed(config="score").run_dir) / "descriptors"
    again = (f"generated={folder / 'generated'}", f"reference={folder / 'reference'}")
    plain = score.main(composed(*again, config="score"))
    csls = score.main(composed(*again, "readout=csls", "readout.k=2", config="score"))
    whitened = score.main(composed(*again, "readout=whitened", "readout.dim=4", config="score"))
    with pytest.raises(StylesimError, match="would make all of them equally similar"):
        score.main(composed(*again, "readout=whitened", config="score"))
    assert csls["gss"] == plain["gss"] != whitened["gss"]
    assert csls["csls"] != plain["csls"]


def test_summary_names_the_nearest_label_of_unlabelled_images(
    sides: tuple[Path, Path], composed: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = composed(f"generated={sides[0] / 'blue'}", f"reference={sides[1]}", *HISTOGRAM, config="score")
    score.main(cfg)
    assert "the most similar single label is blue" in capsys.readouterr().out
    content = json.loads((Path(cfg.run_dir) / "score.json").read_text())
    assert content["labels"][0]["label"] == "blue"
    assert not content["matched_labels"]


@pytest.mark.slow
def test_images_on_both_sides_are_found_told_and_left_out(
    sides: tuple[Path, Path], composed: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture
) -> None:
    works = sides[1]
    copy = works.parent / "others"
    for file in works.glob("*/*.png"):  # the same files under other names
        (copy / file.parent.name).mkdir(parents=True, exist_ok=True)
        (copy / file.parent.name / f"x{file.name}").write_bytes(file.read_bytes())
    cfg = composed(f"generated={copy}", f"reference={works}", *HISTOGRAM, config="score")
    metrics = score.main(cfg)
    assert metrics["gss"] == pytest.approx(metrics["works/same"], abs=1e-6)
    content = json.loads((Path(cfg.run_dir) / "score.json").read_text())
    assert not content["copies"]["counted"]
    pairs = {(pair["generated"], pair["reference"]) for pair in content["copies"]["pairs"]}
    assert pairs == {(f"others/{s}/x{i}.png", f"images/{s}/{i}.png") for s in STYLES for i in range(4, 10)}
    told = "18 generated images are also among the works, and compared with the other works only"
    assert told in caplog.text
    assert told in (Path(cfg.run_dir) / "score.html").read_text()
    cfg.keep_copies = True
    assert score.main(cfg)["gss"] > metrics["gss"], "the score has started over in its folder"
    assert "as well, which raises the score" in (Path(cfg.run_dir) / "score.html").read_text()


@pytest.mark.parametrize("styles", [list(STYLES), ["red"]], ids=["three labels", "one label"])
def test_one_work_per_label_gives_a_page(
    styles: list[str], tmp_path: Path, composed: Callable[..., DictConfig]
) -> None:
    generated = write_images(tmp_path / "made", range(3), styles)
    works = write_images(tmp_path / "real", range(3, 4), styles)
    cfg = composed(f"generated={generated}", f"reference={works}", *HISTOGRAM, config="score")
    metrics = score.main(cfg)
    assert "works/same" not in metrics, "there are no two works of one label"
    assert metrics.get("discrimination", 1) > 0
    page = (Path(cfg.run_dir) / "score.html").read_text()
    assert "<th>own works" not in page
    assert page.count("data:image/webp") >= 3 * len(styles)
