"""Every stylesim command that the README shows fits the configuration and the commands there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from stylesim.core.conf import conf_dir
from stylesim.core.targets import check_targets

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)[2:]
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.startswith("python -m stylesim")
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_of_the_readme_composes(command: list[str]) -> None:
    module, *arguments = command
    overrides = [re.sub(r"=([^{\[]*?),.*", r"=\1", a) for a in arguments if a != "-m"]  # of a sweep, the first job
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(module.removeprefix("stylesim."), overrides)
    check_targets(cfg)


def test_the_makefile_has_the_targets_of_the_readme() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:.*##", makefile, re.M), f"make {target}"
