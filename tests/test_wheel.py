"""The built wheel, installed into an environment of its own, brings everything that a command needs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from conftest import draw

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel; the packages that it depends on are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    [site] = folder.glob("env/lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env"


def run(environment: Path, *command: str, cwd: Path) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [environment / "bin" / command[0], *command[1:]],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_package_and_configurations_come_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    program = "import stylesim; from stylesim.core.conf import conf_dir; print(stylesim.__file__, conf_dir())"
    package, conf = run(environment, "python", "-c", program, cwd=tmp_path).split()
    assert Path(package).is_relative_to(environment)
    assert Path(conf).is_relative_to(environment)
    assert Path(package).with_name("py.typed").is_file()


@pytest.mark.slow
def test_two_folders_are_scored(environment: Path, tmp_path: Path) -> None:
    for side, contents in (("generated", range(3)), ("reference", range(3, 8))):
        (tmp_path / side).mkdir()
        for content in contents:
            (tmp_path / side / f"{content}.png").write_bytes(draw("red", content))
    command = ("score", "generated=generated", "reference=reference", "model=palette", "hydra.run.dir=run")
    assert "report: " in run(environment, "stylesim", *command, cwd=tmp_path)
    assert (tmp_path / "run" / "score.html").is_file()
