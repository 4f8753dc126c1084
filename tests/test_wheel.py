from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_wheel_brings_its_configuration_along(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    assert (site / "stylesim/report/templates/page.css").is_file()
    shown = subprocess.run(
        [sys.executable, "-c", RUN, "--cfg", "job"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert shown.returncode == 0, shown.stderr
    assert f"FROM {site}" in shown.stdout
    assert "temperature: 0.1" in shown.stdout


# As `python -m stylesim.train`, and says where it was found.
RUN = """
import runpy, stylesim, sys
print("FROM", stylesim.__file__)
sys.argv[0] = "stylesim.train"
runpy.run_module("stylesim.train", run_name="__main__", alter_sys=True)
"""
