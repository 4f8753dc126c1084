from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "stylesim"


def test_every_public_name_loads_and_no_module_stands_in_its_way() -> None:
    import stylesim.attribute
    import stylesim.evaluation.embed
    import stylesim.evaluation.evaluate
    import stylesim.search

    for name in stylesim._HOMES:
        assert callable(getattr(stylesim, name)), name
        assert name in dir(stylesim)


def test_import_of_the_package_and_its_commands_brings_no_torch() -> None:
    names = ", ".join(f"stylesim.{file.stem}" for file in PACKAGE.glob("[a-z]*.py"))
    program = f"import sys, stylesim, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


def test_no_module_imports_a_command() -> None:
    graph = grimp.build_graph("stylesim", cache_dir=None)
    commands = [f"stylesim.{file.stem}" for file in PACKAGE.glob("[a-z]*.py")]
    assert {command: graph.find_modules_that_directly_import(command) for command in commands} == {
        command: set() for command in commands
    }


def test_every_package_has_its_layer() -> None:
    [contract] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
    assert layers == {folder.parent.name for folder in PACKAGE.glob("*/__init__.py")}
