from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from stylesim.core.conf import PACKAGE, conf_dir
from stylesim.core.errors import ConfigError
from stylesim.runtime.settings import check_config, describe_groups, describe_keys, help_text, quote_plain_text

COMMANDS = sorted(file.stem for file in conf_dir().glob("*.yaml"))
EXPERIMENTS = sorted(file.stem for file in (conf_dir() / "experiment").glob("*.yaml"))
CHOICES = [
    f"{group.name}={choice.stem}"
    for group in sorted(conf_dir().iterdir())
    if group.is_dir() and group.name not in ("hydra", "launcher", "sweep")
    for choice in sorted(group.glob("*.yaml"))
]


def compose_command(command: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(command, list(overrides))


@pytest.mark.parametrize("choice", CHOICES)
def test_every_yaml_file_fits_the_signature_of_what_it_configures(choice: str) -> None:
    only_evaluated = choice.startswith("readout=") or choice in (
        "data=domainnet",
        "data=shards",
        "data=wikiart",
        "experiment=paper_table1",
    )
    if choice.startswith("maps="):
        check_config(compose_command("rank", choice, "candidates=x", "reference=y"), "rank")
        return
    root = ["data.root=x"] if choice == "data=folder" or (choice.startswith("data=") and only_evaluated) else []
    command = "evaluate" if only_evaluated else "train"
    check_config(compose_command(command, choice, *root), command)


@pytest.mark.parametrize(
    ("command", "overrides", "message"),
    [
        ("train", ["loss.temperature=abc"], "loss.temperature must be a number, got 'abc'."),
        ("train", ["+loss.temprature=0.1"], "Did you mean 'temperature'?"),
        ("train", ["+learning.content_weight=0.1"], "It is now loss.content_weight."),
        ("train", ["data=folder"], "data.root must be given: add data.root=... to the command."),
        ("train", ["loss._target_=stylesim.learning.losses.CSDLos"], "Did you mean 'CSDLoss'?"),
        ("train", ["seed=1.5", "data.seed=0"], "seed must be an integer, got 1.5."),
        ("train", ["+sed=1"], "sed is not a key of stylesim train. Did you mean 'seed'?"),
        ("pack", ["source=a", "out=b", "shard_size=0"], "shard_size must be a positive integer, got 0."),
        ("pack", ["source=a", "out=b", "max_size=-1"], "max_size must be a positive integer or null, got -1."),
        ("embed", ["images=a", "precision=fp8"], "precision must be bf16, fp16 or null, got 'fp8'."),
        ("embed", [], "images must be given: add images=... to the command."),
        ("embed", ["images=[1]"], "images must be a string or a list of strings, got [1]."),
        ("evaluate", ["gaps=1"], "gaps must be true or false, got 1."),
    ],
)
def test_wrong_key_or_value_is_refused_in_a_sentence(command: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_config(compose_command(command, *overrides), command)
    assert message in str(error.value)


def test_key_that_is_left_out_takes_the_default_of_its_target() -> None:
    check_config(compose_command("train", "~learning.gather"), "train")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_can_still_be_changed_from_the_command_line(name: str) -> None:
    cfg = compose_command(
        "train", f"experiment={name}", "views=paper", "trainer.max_steps=7", "loss.temperature=0.05", "seed=9"
    )
    assert cfg.views.scale == [0.08, 1.0]
    assert cfg.trainer.max_steps == 7
    assert cfg.seed == 9
    assert OmegaConf.to_container(cfg, resolve=True)["loss"]["temperature"] == 0.05  # type: ignore[index, call-overload]


def test_experiment_sets_keys_of_the_command() -> None:
    assert compose_command("train", "experiment=csd_paper_vitb").seed == 42


def test_evaluate_takes_controls(composed: Callable[..., DictConfig]) -> None:
    cfg = composed("model=frozen_lite0", "+model@controls.colour=color_histogram", config="evaluate")
    check_config(cfg, "evaluate")
    assert cfg.controls.colour.bins == 8


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_every_key_and_group(command: str) -> None:
    keys = describe_keys(command)
    assert all(key.description for key in keys), [key.name for key in keys if not key.description]
    text = help_text(command)
    assert all(f"  {key.name}=" in text for key in keys if key.name != "run_dir")
    assert all(group.options for group in describe_groups(command))


def test_a_new_command_edits_no_table() -> None:
    assert {file.stem for file in PACKAGE.glob("[a-z]*.py")} >= set(COMMANDS)


@pytest.mark.parametrize(
    "override",
    [
        "loss.temperature=abc",
        "loss.temprature=0.1",
        "model=csd_vitz",
        "model.weights=/no/such/file",
        "model=csd_vitb model.weights=official",
        "trainer.max_steps=0",
        "data.root=/no/such/folder",
    ],
)
def test_mistakes_are_refused_before_torch_is_imported_and_leave_nothing(override: str, tmp_path: Path) -> None:
    program = (
        "import sys, stylesim.runtime.launch as launch\n"
        f"sys.argv = ['train', *{override.split()!r}]\n"
        "try:\n    launch.run('train')\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print('CODE', code, 'TORCH', 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "CODE 2 TORCH False" in done.stdout, done.stderr
    assert done.stderr.startswith("stylesim: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("outputs/*/*")) == []


@pytest.mark.parametrize(
    "where",
    [
        "period = '1890s' and year >= 3",
        "tags contains 'it''s' or not (id in ('a', 'b'))",
        "period like '50\\%' or period = 'say \"x\"'",
        "period = '\\'",
        "period = '\\\"'",
        "period = 'a\\",
        "period = '${x} $y {z} [w] #'",
    ],
)
def test_plain_text_reaches_its_key_unchanged(where: str) -> None:
    arguments = quote_plain_text("search", [f"where={where}", "db=postgresql://a@/b?host=/tmp/x#y", "queries=x", "-m"])
    assert arguments[2:] == ["queries=x", "-m"]
    cfg = compose_command("search", *arguments[:3])
    assert cfg.where == where
    assert cfg.db == "postgresql://a@/b?host=/tmp/x#y"


def test_plain_text_that_is_quoted_already_or_null_stays_as_it_is() -> None:
    arguments = ["where='a = 1'", 'where="a = 1"', "where=null", "where=", "k=3"]
    assert quote_plain_text("search", arguments) == arguments
