"""python -m stylesim.curate, as a curator runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import draw
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from stylesim.config import check_config, conf_dir
from stylesim.curate import main
from stylesim.curation.stage import read_stage
from stylesim.errors import StylesimError

PROGRAM = """
import sys
from stylesim.curate import main
from stylesim.launch import run
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
    check_config(cfg)
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
    figures = json.loads((tmp_path / "run/metrics.json").read_text())
    assert figures["sources/images"] == figures["tags/images"] == 3
    assert figures["tags/untagged"] == 1
    assert read_stage(tmp_path / "work/2-tags")["tags"].to_pylist() == [
        ["artist:claude monet", "medium:oil painting"],
        [],
        ["movement:pop art", "medium:portrait"],
    ]


def test_the_help_and_a_missing_source(tmp_path: Path):
    told = command("--help", cwd=tmp_path)
    assert told.returncode == 0
    assert "stylesim.curation.tags.match_tags" in told.stdout
    asked = command("out=work", cwd=tmp_path)
    assert asked.returncode == 2
    assert "source must be given: add source=laion, contrastyles, img2dataset or folder" in asked.stderr


def test_what_is_missing_or_mistyped_is_said(tmp_path: Path):
    with pytest.raises(StylesimError, match="out must be given"):
        composed("source=folder", "source.path=x")
    with pytest.raises(StylesimError, match=r"source.path must be given"):
        composed("source=contrastyles", "out=x")
    with pytest.raises(StylesimError, match=r"tags.matching='exakt' does not fit"):
        composed("source=folder", "source.path=x", "out=x", "tags.matching=exakt")
    with pytest.raises(StylesimError, match=r"stages=\[tag\] is no stage. Did you mean 'tags'\?"):
        main(composed("out=x", "stages=[sources,tag]"))
    with pytest.raises(StylesimError, match=r"stages=\[\] is nothing to do"):
        main(composed("out=x", "stages=[]"))
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
