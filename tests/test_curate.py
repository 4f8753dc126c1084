"""The command `stylesim curate`, as a curator runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import draw
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from stylesim.core.conf import conf_dir
from stylesim.core.errors import ConfigError, DataError, StylesimError, WeightsError
from stylesim.core.stages.stage_parts import part_paths
from stylesim.curate import main
from stylesim.curation.stage import read_stage
from stylesim.runtime.settings import check_config, register_settings

PROGRAM = """
import sys
from stylesim.curate import main
from stylesim.runtime.launch import run
code = 0
try:
    run("curate")
except SystemExit as end:
    code = end.code
assert "torch" not in sys.modules
sys.exit(code)
"""


def run_command(*overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command; it fails if torch was imported."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *overrides], cwd=cwd, capture_output=True, text=True, timeout=300
    )


def composed(*overrides: str) -> DictConfig:
    register_settings("curate")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("curate", list(overrides))
    check_config(cfg, "curate")
    return cfg


def write_images(folder: Path) -> Path:
    folder.mkdir()
    for content, caption in enumerate(("Claude Monet, oil painting", "a van on the road", "pop art portrait")):
        (folder / f"{content}.png").write_bytes(draw("red", content))
        (folder / f"{content}.txt").write_text(caption)
    return folder


@pytest.mark.slow
def test_sources_and_tags_run_without_torch(tmp_path: Path):
    write_images(tmp_path / "mine")
    arguments = ("source=folder", "source.path=mine", "out=work", "stages=[sources,tags]", "hydra.run.dir=run")
    done = run_command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sources: 3 images, 3 rows (work/1-sources)" in done.stdout
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["sources/images"] == metrics["tags/images"] == 3
    assert metrics["tags/untagged"] == 1
    assert read_stage(tmp_path / "work/2-tags")["tags"].to_pylist() == [
        ["artist:claude monet", "medium:oil painting"],
        [],
        ["movement:pop art", "medium:portrait"],
    ]


@pytest.mark.slow
def test_help_and_a_missing_source(tmp_path: Path):
    help_text = run_command("--help", cwd=tmp_path)
    assert help_text.returncode == 0
    assert "tags.matching=exact" in help_text.stdout
    refused = run_command("out=work", cwd=tmp_path)
    assert refused.returncode == 2
    assert "source must be given: add source=laion, contrastyles, img2dataset or folder" in refused.stderr


def test_missing_and_mistyped_keys_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="out must be given"):
        composed("source=folder", "source.path=x")
    with pytest.raises(ConfigError, match=r"source.path must be given"):
        composed("source=contrastyles", "out=x")
    with pytest.raises(ConfigError, match=r"tags.matching must be exact or reference, got"):
        composed("source=folder", "source.path=x", "out=x", "tags.matching=exakt")
    with pytest.raises(ConfigError, match=r"stages=\[tag\] is not a stage. Did you mean 'tags'\?"):
        main(composed("out=x", "stages=[sources,tag]"))
    with pytest.raises(ConfigError, match=r"stages must name at least one of sources, .*, got \[\]"):
        main(composed("out=x", "stages=[]"))
    with pytest.raises(ConfigError, match=r"source\.rows must be a positive integer, got 0"):
        main(
            composed(
                "source=folder", f"source.path={Path(__file__).parent}", "source.rows=0", "out=x", "stages=[sources]"
            )
        )
    with pytest.raises(ConfigError, match=r"1-sources is not finished.*Add sources to stages"):
        main(composed(f"out={tmp_path}", "stages=[tags]"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tags.stop=/no/such.txt", r"/no/such\.txt cannot be read as a list of names"),
        ("filter.min_size=-1", r"filter\.min_size must be 0 px or more, got -1"),
        ("filter.max_tag_images=1", r"filter\.max_tag_images=1 is less than filter\.min_tag_images=2"),
        ("filter.nsfw=2.0", r"filter\.nsfw must be a probability in \[0, 1\], a list of labels, or null, got 2\.0"),
        ("deduplicate.threshold=1.5", r"deduplicate\.threshold must be an inner product in \[-1, 1\], got 1\.5"),
        ("deduplicate.whiten=1", r"deduplicate\.whiten must be null or an integer of at least 2"),
        ("+deduplicate.evaluation.mine=/no/such", r"/no/such"),
        ("deduplicate.threshold=0.9", r"source\.path must exist, got nowhere"),
        ("shard.shard_size=0", r"shard\.shard_size must be a positive integer, got 0"),
        ("shard.query_images=-1", r"shard\.query_images must be 0 or more, got -1"),
    ],
)
def test_settings_of_later_stages_are_checked_before_the_first_stage(tmp_path: Path, setting: str, message: str):
    cfg = composed("source=folder", "source.path=nowhere", f"out={tmp_path / 'work'}", setting)
    with pytest.raises((ConfigError, DataError), match=message):
        main(cfg)
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_one_stage_is_run_alone_and_made_again_with_other_settings(tmp_path: Path):
    images, out = write_images(tmp_path / "mine"), f"out={tmp_path / 'work'}"
    main(composed("source=folder", f"source.path={images}", out, "stages=[sources]", "processes=1"))
    alone = main(composed(out, "stages=[tags]", "processes=1"))
    assert main(composed(out, "stages=[tags]", "processes=1")) == alone
    with pytest.raises(ConfigError, match=r"\(matching differ\): add redo=true"):
        main(composed(out, "stages=[tags]", "tags.matching=reference", "processes=1"))
    again = main(composed(out, "stages=[tags]", "tags.matching=reference", "redo=true", "processes=1"))
    assert again["tags/images"] == 3


@pytest.mark.slow
def test_a_stage_whose_input_was_made_again_is_not_read(tmp_path: Path):
    images, out = write_images(tmp_path / "mine"), f"out={tmp_path / 'work'}"
    first = ("source=folder", f"source.path={images}", out, "processes=1", "filter.min_tag_images=1")
    main(composed(*first, "stages=[sources,tags,filter]"))
    main(composed(out, "stages=[tags]", "tags.matching=reference", "redo=true", "processes=1"))
    with pytest.raises(ConfigError, match=r"2-tags has been made again .*3-filter.*: add filter to stages"):
        main(composed(out, "stages=[shard]", "processes=1"))


def test_missing_weights_are_reported_before_the_first_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STYLESIM_CACHE", str(tmp_path / "cache"))
    images = write_images(tmp_path / "mine")
    with pytest.raises(WeightsError, match=r"set deduplicate\.encoder\.weights to its path"):
        main(composed("source=folder", f"source.path={images}", f"out={tmp_path / 'work'}"))
    assert not (tmp_path / "work").exists()
    done = tmp_path / "work" / "4-deduplicate" / "summary.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    with pytest.raises(StylesimError, match=r"checkpoint must be an existing file, got /no/such"):
        main(composed(f"out={tmp_path / 'work'}", "stages=[deduplicate]", "deduplicate.checkpoint=/no/such"))


@pytest.mark.slow
def test_after_ctrl_c_the_same_command_continues(tmp_path: Path):
    images = write_images(tmp_path / "mine")
    for number in range(300):
        (images / f"more{number}.png").write_bytes(draw("blue", number))
    arguments = ("source=folder", f"source.path={images}", "source.rows=1", "stages=[sources]")
    command = [sys.executable, "-m", "stylesim.curate", *arguments, "processes=2", "out=work", "hydra.run.dir=run"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while len(part_paths(tmp_path / "work/1-sources")) < 10:  # by then, both processes are busy
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    messages = process.communicate(timeout=120)[1]
    assert process.returncode == 130, messages
    assert "Interrupted in work/1-sources: run the same command again to continue" in messages
    assert "Traceback" not in messages
    assert len(part_paths(tmp_path / "work/1-sources")) < 303
    continued = main(composed(*arguments, f"out={tmp_path / 'work'}", "processes=1"))
    assert continued == main(composed(*arguments, f"out={tmp_path / 'whole'}", "processes=1"))
    for part in part_paths(tmp_path / "whole/1-sources"):
        assert part.read_bytes() == (tmp_path / "work/1-sources" / part.name).read_bytes()
