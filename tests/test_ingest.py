from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from conftest import STYLES, draw
from omegaconf import DictConfig

from stylesim import embed, ingest
from stylesim.core.errors import ConfigError, DataError
from stylesim.retrieval.database.style_database import StyleDatabase

HISTOGRAM = ("model=color_histogram", "model.image_size=48", "device=cpu")
Compose = Callable[..., DictConfig]


@pytest.fixture
def works(tmp_path: Path) -> Path:
    """A table of nine images with years and licences, one image damaged."""
    rows = []
    for style in STYLES:
        for content in range(3):
            name = f"{style}{content}.png"
            (tmp_path / name).write_bytes(draw(style, content) if name != "red0.png" else b"broken")
            rows.append({"path": name, "tags": f"set:{style}", "year": 1890 + content, "licence": "CC0"})
    pd.DataFrame(rows).to_csv(tmp_path / "works.csv", index=False)
    return tmp_path / "works.csv"


def test_a_table_of_paths_becomes_a_database_and_the_same_command_continues_it(
    works: Path, composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.csv").write_text("id,period\nworks.csv/blue1.png,1890s\nunknown,x\n")
    options = (f"db={tmp_path / 'works.db'}", f"images={works}", f"metadata={tmp_path / 'more.csv'}", *HISTOGRAM)
    cfg = composed(*options, config="ingest")
    assert ingest.main(cfg) == {"added": 8, "present": 0, "damaged": 1, "items": 8}
    assert "8 added, 0 already there, 1 damaged" in capsys.readouterr().out
    assert pd.read_csv(Path(cfg.run_dir) / "damaged.csv")["id"].tolist() == ["works.csv/red0.png"]
    assert ingest.main(cfg) == {"added": 0, "present": 8, "damaged": 1, "items": 8}
    with StyleDatabase.open(tmp_path / "works.db") as database:
        item = database.items(["works.csv/blue1.png"]).iloc[0]
        assert (item["year"], item["licence"], item["period"], item["tags"]) == (1891, "CC0", "1890s", ["set:blue"])
        assert database.count("thumbnail is not null") == 8


def test_descriptor_sets_are_added_without_a_model(works: Path, composed: Compose, tmp_path: Path) -> None:
    embed.main(composed(f"images={works}", f"out={tmp_path / 'set'}", *HISTOGRAM, config="embed"))
    cfg = composed(f"db={tmp_path / 'works.db'}", f"descriptors={tmp_path / 'set'}", "exact_below=1", config="ingest")
    metrics = ingest.main(cfg)
    assert metrics.pop("recall@10") >= 0.9
    assert metrics == {"added": 8, "present": 0, "damaged": 0, "items": 8}
    with StyleDatabase.open(tmp_path / "works.db") as database:
        database.export(tmp_path / "exported", where="tags contains 'set:green'")
    copy = composed(f"db={tmp_path / 'copy.db'}", f"descriptors={tmp_path / 'exported'}", config="ingest")
    assert ingest.main(copy)["added"] == 3
    other = composed(f"db={tmp_path / 'copy.db'}", f"images={works}", *HISTOGRAM, "flips=true", config="ingest")
    with pytest.raises(DataError, match="flips True instead of False"):
        ingest.main(other)


def test_what_cannot_be_added_is_refused_before_a_model_is_loaded(
    works: Path, composed: Compose, tmp_path: Path
) -> None:
    db = f"db={tmp_path / 'works.db'}"
    for options, error, message in (
        ([], ConfigError, "either images=PATH or descriptors=FOLDER"),
        ([f"images={works}", f"descriptors={works}"], ConfigError, "either images=PATH or descriptors=FOLDER"),
        ([f"images={tmp_path / 'absent'}"], ConfigError, "images"),
        ([f"descriptors={tmp_path}"], DataError, "not a descriptor set"),
        ([f"images={works}", f"metadata={tmp_path / 'absent.csv'}"], DataError, "no table of metadata"),
        ([f"images={works}", f"metadata={works}"], DataError, "needs a column id"),
    ):
        with pytest.raises(error, match=message):
            ingest.main(composed(db, *options, config="ingest"))
    assert not (tmp_path / "works.db").exists()
