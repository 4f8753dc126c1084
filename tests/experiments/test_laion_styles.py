"""Every command on the page of the full run composes, and its arithmetic is right."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from stylesim.core.conf import conf_dir
from stylesim.core.targets import check_targets

PAGE = (Path(__file__).parents[2] / "experiments" / "laion_styles" / "README.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)[2:]
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("python -m stylesim")
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_composes(command: list[str]) -> None:
    module, *arguments = command
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(module.removeprefix("stylesim."), arguments)
    check_targets(cfg)


@pytest.mark.parametrize(("model", "rate"), [("ViT-B", 178), ("ViT-L", 89)])
def test_hours_of_training_follow_from_the_rates(model: str, rate: int) -> None:
    hours = 80_000 * 64 / rate / 3600
    assert f"| train {model} | {hours:.1f} h | {hours / 2:.1f} h | {4 * hours:.0f} | {2 * hours:.0f} USD |" in PAGE


def test_disk_space_follows_from_the_size_of_an_image() -> None:
    kilobytes = 240e12 / 5.85e9 / 1e3
    assert f"{kilobytes:.0f} kB each" in PAGE
    assert f"| 511,921 images in shards | {511_921 * kilobytes / 1e6:.0f} GB |" in PAGE
