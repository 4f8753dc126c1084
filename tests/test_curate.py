"""python -m stylesim.curate, as a curator runs it."""

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
from stylesim.core.errors import StylesimError
from stylesim.curate import main
from stylesim.curation.stage import read_stage
from stylesim.runtime.settings import check_config

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


def command(*overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command; it fails where torch was imported."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *overrides], cwd=cwd, capture_output=True, text=True, timeout=300
    )


def composed(*overrides: str) -> DictConfig:
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


def test_sources_and_tags_without_torch(tmp_path: Path):
    write_images(tmp_path / "mine")
    arguments = ("source=folder", "source.path=mine", "out=work", "stages=[sources,tags]", "hydra.run.dir=run")
    done = command(*arguments, cwd=tmp_path)
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


def test_the_help_and_a_missing_source(tmp_path: Path):
    told = command("--help", cwd=tmp_path)
    assert told.returncode == 0
    assert "tags.matching=exact" in told.stdout
    asked = command("out=work", cwd=tmp_path)
    assert asked.returncode == 2
    assert "source must be given: add source=laion, contrastyles, img2dataset or folder" in asked.stderr


def test_what_is_missing_or_mistyped_is_said(tmp_path: Path):
    with pytest.raises(StylesimError, match="out must be given"):
        composed("source=folder", "source.path=x")
    with pytest.raises(StylesimError, match=r"source.path must be given"):
        composed("source=contrastyles", "out=x")
    with pytest.raises(StylesimError, match=r"tags.matching must be exact or reference, got 'exakt'"):
        composed("source=folder", "source.path=x", "out=x", "tags.matching=exakt")
    with pytest.raises(StylesimError, match=r"stages=\[tag\] is no stage. Did you mean 'tags'\?"):
        main(composed("out=x", "stages=[sources,tag]"))
    with pytest.raises(StylesimError, match=r"stages=\[\] is nothing to do"):
        main(composed("out=x", "stages=[]"))
    with pytest.raises(StylesimError, match=r"source\.rows=0: a part has at least one row"):
        main(composed("source=folder", "source.path=x", "source.rows=0", "out=x"))
    with pytest.raises(StylesimError, match=r"1-sources is not finished.*add sources to stages"):
        main(composed(f"out={tmp_path}", "stages=[tags]"))


def test_a_stage_alone_and_again_with_other_settings(tmp_path: Path):
    images, out = write_images(tmp_path / "mine"), f"out={tmp_path / 'work'}"
    main(composed("source=folder", f"source.path={images}", out, "stages=[sources]", "processes=1"))
    alone = main(composed(out, "stages=[tags]", "processes=1"))
    assert main(composed(out, "stages=[tags]", "processes=1")) == alone
    with pytest.raises(StylesimError, match=r"\(matching differ\): add redo=true"):
        main(composed(out, "stages=[tags]", "tags.matching=reference", "processes=1"))
    redone = main(composed(out, "stages=[tags]", "tags.matching=reference", "redo=true", "processes=1"))
    assert redone["tags/images"] == 3


def test_a_stage_is_not_made_of_what_another_one_no_longer_holds(tmp_path: Path):
    images, out = write_images(tmp_path / "mine"), f"out={tmp_path / 'work'}"
    first = ("source=folder", f"source.path={images}", out, "processes=1", "filter.min_tag_images=1")
    main(composed(*first, "stages=[sources,tags,filter]"))
    main(composed(out, "stages=[tags]", "tags.matching=reference", "redo=true", "processes=1"))
    with pytest.raises(StylesimError, match=r"2-tags has been made anew .*3-filter.*: add filter to stages"):
        main(composed(out, "stages=[shard]", "processes=1"))


def test_weights_that_are_not_there_are_missed_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STYLESIM_CACHE", str(tmp_path / "cache"))
    images = write_images(tmp_path / "mine")
    with pytest.raises(StylesimError, match=r"pass it as deduplicate\.encoder\.weights=<path>"):
        main(composed("source=folder", f"source.path={images}", f"out={tmp_path / 'work'}"))
    assert not (tmp_path / "work").exists()
    done = tmp_path / "work" / "4-deduplicate" / "summary.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    with pytest.raises(StylesimError, match=r"checkpoint=/no/such: there is no such file"):
        main(composed(f"out={tmp_path / 'work'}", "stages=[deduplicate]", "deduplicate.checkpoint=/no/such"))


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(tmp_path: Path):
    images = write_images(tmp_path / "mine")
    for number in range(400):
        (images / f"more{number}.png").write_bytes(draw("blue", number))
    arguments = ("source=folder", f"source.path={images}", "source.rows=1", "stages=[sources,tags]", "processes=2")
    started = [sys.executable, "-m", "stylesim.curate", *arguments, "out=work", "hydra.run.dir=run"]
    process = subprocess.Popen(started, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while len(list(tmp_path.glob("work/1-sources/part-*.parquet"))) < 50:  # both processes are at work then
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert "stopped in work/1-sources; the same command goes on there" in said
    assert "Traceback" not in said
    subprocess.run(started, cwd=tmp_path, check=True, timeout=300)
    main(composed(*arguments, f"out={tmp_path / 'whole'}"))
    for part in sorted((tmp_path / "whole").glob("*/part-*.parquet")):
        assert part.read_bytes() == (tmp_path / "work" / part.relative_to(tmp_path / "whole")).read_bytes()
