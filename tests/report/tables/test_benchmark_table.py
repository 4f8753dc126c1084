"""The table that combines the run folders of a sweep."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sweep_files import QUERIES, hits, write_run, write_sweep

from stylesim.core.conf import conf_dir
from stylesim.core.errors import ConfigError
from stylesim.core.targets import check_targets
from stylesim.evaluation.statistics import bootstrap_interval, paired_difference
from stylesim.report.tables.benchmark_table import paper_metrics, read_benchmark


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path)


def test_paper_has_twelve_encoders_and_each_can_be_configured() -> None:
    table = paper_metrics()
    assert len(table) == 12
    assert table["csd_vitl"][0] == "CSD ViT-L/14"
    assert table["csd_vitl"][1]["wikiart", "paper_map@100"] == pytest.approx(0.3565)
    assert ("domainnet", "recall@1") not in table["vgg_gram"][1], "the paper reports none"
    assert all(cells["wikiart", "paper_map@1"] == cells["wikiart", "recall@1"] for _, cells in table.values())
    experiment = OmegaConf.load(conf_dir() / "experiment" / "paper_table1.yaml")
    assert sorted(experiment.hydra.sweeper.params.model.split(",")) == sorted(table)


@pytest.mark.slow
def test_experiment_configures_each_encoder_as_the_published_code_does() -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        configs = {
            model: compose("evaluate", ["experiment=paper_table1", f"model={model}", "data=wikiart", "data.root=/x"])
            for model in paper_metrics()
        }
    for cfg in configs.values():
        check_targets(cfg)
    presets = {model: cfg.model.get("preset") for model, cfg in configs.items()}
    # For MoCo the published code does what its authors do; CSD and GDA have no other preset.
    without_reference = {"moco_vitb", "gda_clip", "gda_dino", "gda_vit", "csd_vitb", "csd_vitl"}
    assert {model for model, preset in presets.items() if preset != "reference"} == without_reference
    assert configs["vgg_gram"].readout == {
        "_target_": "stylesim.retrieval.readouts.Pca",
        "dim": 1024,
        "fit": "query",
        "renormalise": False,
    }
    assert configs["csd_vitl"].model.weights == "official"


def test_table_compares_with_the_paper_and_says_what_is_missing_and_why(sweep: Path) -> None:
    table = read_benchmark(sweep)
    rows = {row.name: row for row in table.rows}
    assert list(rows) == [*paper_metrics(), "color_histogram"], "the paper's rows in its order, run or not"
    cell = rows["csd_vitl"].cells["wikiart", "paper_map@1"]
    assert cell.ours == pytest.approx(0.7)
    assert cell.paper == pytest.approx(0.6456)
    assert cell.difference == pytest.approx(0.0544)
    assert cell.interval == bootstrap_interval(hits(0.7, seed=len("csd_vitl")))
    assert rows["csd_vitl"].cells["domainnet", "paper_map@1"].ours is None
    assert rows["color_histogram"].cells["wikiart", "recall@1"].paper is None
    missing = {line.split(":")[0]: line for line in table.missing}
    assert "The weights of VGG16" in missing["vgg_gram, wikiart"]
    assert "was stopped" in missing["csd_vitl, domainnet"]
    assert "not run" in missing["clip_vitl, domainnet"]
    assert "gda_vit" in missing["not run"]
    assert "clip_vitl" not in missing["not run"]
    assert not any(line.startswith(("color_histogram", "csd_vitl, wikiart")) for line in table.missing)


@pytest.mark.slow
def test_encoders_are_compared_on_their_common_queries(sweep: Path) -> None:
    lines = {line.name: line for line in read_benchmark(sweep).comparisons if line.set == "wikiart"}
    assert lines.keys() == {"clip_vitl", "color_histogram"}
    assert {line.baseline for line in lines.values()} == {"csd_vitl"}, "the best row"
    best, other = hits(0.7, seed=len("csd_vitl")), hits(0.2, seed=len("color_histogram"))
    assert lines["color_histogram"].difference == paired_difference(best, other)
    against = read_benchmark(sweep, against="color_histogram").comparisons
    assert {(line.set, line.name, line.baseline) for line in against} == {
        ("wikiart", "csd_vitl", "color_histogram"),
        ("wikiart", "clip_vitl", "color_histogram"),
    }
    # A run that evaluated fewer queries is compared on those that both have.
    file = sweep / "1" / "per_query.parquet"
    pd.read_parquet(file).iloc[::-2].to_parquet(file)
    fewer = next(line for line in read_benchmark(sweep).comparisons if line.name == "clip_vitl")
    common = np.arange(QUERIES)[::-2]
    other = hits(0.5, seed=len("clip_vitl"))
    assert fewer.queries == 30
    assert fewer.difference.mean == pytest.approx(float((best - other)[common].mean()))


def test_latest_run_counts_and_a_failed_run_that_was_repeated_is_not_missing(sweep: Path) -> None:
    write_run(sweep / "6", "vgg_gram", "wikiart", 0.3)
    (sweep / "index" / ".hydra").mkdir(parents=True)  # a run of another command
    OmegaConf.save(
        {"hydra": {"runtime": {"choices": {}}, "overrides": {"task": []}}}, sweep / "index/.hydra/hydra.yaml"
    )
    later = write_run(sweep / "7", "csd_vitl", "wikiart", 0.6)
    os.utime(later / "metrics.json", (4e9, 4e9))
    table = read_benchmark(sweep)
    rows = {row.name: row for row in table.rows}
    assert rows["csd_vitl"].cells["wikiart", "recall@1"].ours == pytest.approx(0.6)
    assert not any(line.startswith("vgg_gram, wikiart") for line in table.missing)


def test_rows_are_named_by_the_overrides_that_differ(tmp_path: Path) -> None:
    common = ("model.image_size=48", "device=cpu")
    for number, readout in enumerate(("cosine", "csls")):
        task, recall = (f"readout={readout}", *common), 0.5 + number / 10
        write_run(tmp_path / str(number), "ink_box", "shards", recall, *task, sets=("all", "grey"))
    write_run(tmp_path / "2", "color_histogram", "shards", 0.2, "readout=cosine", *common, sets=("all", "grey"))
    table = read_benchmark(tmp_path)
    names = ["ink_box readout=csls", "ink_box readout=cosine", "color_histogram readout=cosine"]
    assert [row.name for row in table.rows] == names
    assert table.common_overrides == ["data.root=/x", "model.image_size=48"], "the device does not change the encoder"
    assert table.columns == [("all", "recall@1"), ("grey", "recall@1")], "sets that are not in the paper"
    assert table.missing == []
    assert read_benchmark(tmp_path, ["queries"]).columns == [("all", "queries"), ("grey", "queries")]
    with pytest.raises(ConfigError, match=r"no run has recall@7; the metrics are .*recall@1"):
        read_benchmark(tmp_path, ["recall@7"])
    with pytest.raises(ConfigError, match="against='x' is not a row; the rows are ink_box"):
        read_benchmark(tmp_path, against="x")


def test_rows_of_checkpoints_and_descriptors_are_named_by_their_encoders(tmp_path: Path) -> None:
    # Hydra's choice of `model` is csd_vitl in each run, although none has evaluated it.
    for number, (key, encoder) in enumerate(
        [("descriptors", "ink box"), ("descriptors", "palette 3 x 8"), ("checkpoint", "CSD lite0")]
    ):
        folder = write_run(tmp_path / str(number), "csd_vitl", "wikiart", 0.5, f"{key}=/{number}")
        (folder / "encoders.json").write_text(json.dumps({"model": {"name": encoder}, "control": {"name": "x"}}))
    old = write_run(tmp_path / "3", "csd_vitl", "wikiart", 0.5, "checkpoint=/3")
    (old / "descriptors" / "model" / "images").mkdir(parents=True)
    (old / "descriptors" / "model" / "images" / "meta.json").write_text('{"encoder": {"name": "CSD ViT-B-16"}}')
    rows = {row.name: row for row in read_benchmark(tmp_path).rows}
    names = {"ink box descriptors=/0", "palette 3 x 8 descriptors=/1", "CSD lite0 checkpoint=/2"}
    assert set(rows) - set(paper_metrics()) == names | {"CSD ViT-B-16 checkpoint=/3"}
    assert rows["csd_vitl"].cells["wikiart", "recall@1"].ours is None, "not the paper's encoder"


def test_row_is_named_by_the_run_that_left_its_metrics(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "0", "palette", "shards", 0.5)  # Hydra has written the files of a refused command
    provenance = {"choices": {"model": "ink_box", "data": "shards"}, "overrides": ["model=ink_box"]}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    assert [row.name for row in read_benchmark(tmp_path).rows] == ["ink_box"]


def test_runs_on_different_images_are_different_rows(tmp_path: Path) -> None:
    for number, root in enumerate(("/a", "/b")):
        folder = write_run(tmp_path / str(number), "ink_box", "shards", 0.5 + number / 10, sets=("all",))
        hydra = OmegaConf.load(folder / ".hydra" / "hydra.yaml")
        hydra.hydra.overrides.task = ["model=ink_box", "data=shards", f"data.root={root}"]
        OmegaConf.save(hydra, folder / ".hydra" / "hydra.yaml")
    assert [row.name for row in read_benchmark(tmp_path).rows] == ["ink_box data.root=/b", "ink_box data.root=/a"]
