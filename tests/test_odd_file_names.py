"""Every command with names that are not UTF-8, in other Unicode forms, and with folders that are links."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from conftest import draw
from omegaconf import DictConfig

from stylesim import curate, embed, evaluate, ingest, pack, score, train
from stylesim.attribute import main as attribute_images
from stylesim.core.errors import DataError
from stylesim.data.shards.shard_samples import read_shards
from stylesim.encoders.weights.checkpoint import load_checkpoint
from stylesim.retrieval.database.style_database import StyleDatabase
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.search import main as search_database

HISTOGRAM = ("model=color_histogram", "model.image_size=48", "device=cpu")
LABELS = {b"caf\xe9": "red", b"caf\xe8": "green", unicodedata.normalize("NFD", "Cézanne").encode(): "blue"}
TAGS = {r"caf\xe9", r"caf\xe8", "Cézanne"}


@pytest.fixture
def works(tmp_path: Path) -> Path:
    """Return a folder of three labels with five images each, one of them damaged; the last label is a link."""
    folder = tmp_path / "works"
    folder.mkdir()
    for label, style in LABELS.items():
        target = (tmp_path if style == "blue" else folder) / os.fsdecode(label)
        target.mkdir()
        for number in range(5):
            (target / os.fsdecode(b"\xff%d.png" % number)).write_bytes(draw(style, number))
        (target / "._0.png").write_bytes(b"of macOS")
        if style == "blue":
            (folder / target.name).symlink_to(target)
    (folder / os.fsdecode(b"caf\xe9/\xfe.png")).write_bytes(b"damaged")
    return folder


def test_embed(works: Path, composed: Callable[..., DictConfig], tmp_path: Path) -> None:
    metrics = embed.main(composed(f"images={works}", f"out={tmp_path / 'set'}", *HISTOGRAM, config="embed"))
    assert (metrics["images"], metrics["damaged"]) == (15, 1)
    made = DescriptorSet.load(tmp_path / "set")
    assert {tag for tags in made.items["tags"] for tag in tags} == TAGS
    assert [id for id, _ in made.damaged] == [r"works/caf\xe9/\xfe.png"]


def test_score(works: Path, composed: Callable[..., DictConfig]) -> None:
    metrics = score.main(composed(f"generated={works}", f"reference={works}", *HISTOGRAM, config="score"))
    assert {f"label/{tag}/gss" for tag in TAGS} <= metrics.keys()


def test_evaluate(works: Path, composed: Callable[..., DictConfig]) -> None:
    cfg = composed("data=shards", f"data.root={works}", "data.spec.ks=[1]", *HISTOGRAM, config="evaluate")
    assert evaluate.main(cfg)["all/queries"] == 15


def test_evaluate_held_out_images(works: Path, composed: Callable[..., DictConfig]) -> None:
    cfg = composed("data=folder", f"data.root={works}", "data.validation_share=0.5", *HISTOGRAM, config="evaluate")
    assert evaluate.main(cfg)["validation/queries"] >= 6


def test_pack(works: Path, composed: Callable[..., DictConfig], tmp_path: Path) -> None:
    metrics = pack.main(composed(f"source={works}", f"out={tmp_path / 'shards'}", "processes=1", config="pack"))
    assert (metrics["images"], metrics["damaged"]) == (15, 1)
    assert {tag for sample in read_shards(tmp_path / "shards") for tag in sample.tags} == TAGS


@pytest.mark.slow
def test_curate(works: Path, composed: Callable[..., DictConfig], tmp_path: Path) -> None:
    for file in works.glob("*/*.png"):
        file.with_suffix(".txt").write_text("by Claude Monet", encoding="utf-16")
    cfg = composed(
        *("source=folder", f"source.path={works}", f"out={tmp_path / 'work'}", "processes=1"),
        "stages=[sources,tags]",
        config="curate",
    )
    metrics = curate.main(cfg)
    assert metrics["sources/images"] == metrics["tags/images"] == 15
    assert "tags/untagged" not in metrics


@pytest.mark.slow
def test_train(works: Path, composed: Callable[..., DictConfig], tmp_path: Path) -> None:
    metrics = train.main(composed("data=folder", f"data.root={works}", "data.batch_size=4", "data.max_damaged=0.2"))
    assert metrics["validation/queries"] >= 3
    weights = tmp_path / "run" / "checkpoints" / "best.safetensors"
    assert load_checkpoint(weights).encode([next(works.glob("*/*.png"))], on_error="skip").shape[1] > 0


def test_a_database_is_filled_searched_and_used_to_attribute(
    works: Path, composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    db = tmp_path / "it's = #1, (é) %20" / "works.db"
    db.parent.mkdir()
    cfg = composed("db=?", f"images={works}", *HISTOGRAM, config="ingest")
    cfg.db = str(db)
    assert ingest.main(cfg)["added"] == 15
    cfg = composed("db=?", f"queries={works}", "k=2", *HISTOGRAM, config="search")
    cfg.db = str(db)
    assert search_database(cfg)["neighbours"] == 30
    cfg = composed(f"queries={works}", "gallery=?", "~model@copy_encoder", *HISTOGRAM, config="attribute")
    cfg.gallery = str(db)
    attribute_images(cfg)
    table = pd.read_csv(tmp_path / "run" / "attribution.csv")
    assert set(table["label"]) == TAGS
    with pytest.raises(DataError, match=r"valid UTF-8, got .*xe9\.db"):
        StyleDatabase.create(str(tmp_path / os.fsdecode(b"\xe9.db")), {}, 2)
