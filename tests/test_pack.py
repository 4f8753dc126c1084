"""`stylesim pack` and `stylesim index`, as users start them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import draw


def command(name: str, *overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"stylesim.{name}", *overrides], cwd=cwd, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_folder_becomes_shards_and_their_index_is_verified(tmp_path: Path):
    for content in range(5):
        file = tmp_path / "mine" / "red" / f"{content}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(draw("red", content))
    (tmp_path / "mine" / "red" / "bad.png").write_bytes(b"no image")

    packed = command("pack", "source=mine", "out=shards", "shard_size=3", "hydra.run.dir=run", cwd=tmp_path)
    assert packed.returncode == 0, packed.stderr
    assert "5 images with 1 tags in 2 shards; 1 damaged images left out" in packed.stdout
    assert "left out mine/red/bad.png: " in packed.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == {"damaged": 1, "images": 5, "shards": 2}
    assert (tmp_path / "run" / "provenance.json").is_file()

    verified = command("index", "folder=shards", "verify=true", cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr
    shard = tmp_path / "shards" / "00001.tar"
    shard.write_bytes(shard.read_bytes().replace(b"red", b"rot"))
    changed = command("index", "folder=shards", "verify=true", cwd=tmp_path)
    assert changed.returncode == 2
    assert "is not the file that was indexed" in changed.stderr
    again = command("index", "folder=shards", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "5 images with 2 tags in 2 shards" in again.stdout


@pytest.mark.slow
def test_missing_source_is_refused(tmp_path: Path):
    without_source = command("pack", "out=shards", cwd=tmp_path)
    assert without_source.returncode == 2
    assert "source must be given: add source=... to the command." in without_source.stderr
    without_folder = command("pack", "source=nothing", "out=shards", cwd=tmp_path)
    assert without_folder.returncode == 2
    assert "There is no folder of images and no table" in without_folder.stderr
