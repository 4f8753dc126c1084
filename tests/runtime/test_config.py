from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from stylesim.core.errors import StylesimError
from stylesim.core.targets import check_config, conf_dir, signature

EXPERIMENTS = sorted(p.stem for p in (conf_dir() / "experiment").glob("*.yaml"))
CHOICES = [
    f"{group.name}={choice.stem}"
    for group in sorted(conf_dir().iterdir())
    if group.is_dir() and group.name != "launcher" and group.name != "sweep"
    for choice in sorted(group.glob("*.yaml"))
]


def compose_train(*overrides: str, config: str = "train") -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(config, list(overrides))


@pytest.mark.parametrize("choice", CHOICES)
def test_every_yaml_fits_the_signature_of_what_it_configures(choice: str) -> None:
    only_evaluated = choice in ("data=domainnet", "data=shards", "data=wikiart") or choice.startswith("readout=")
    root = ["data.root=x"] if choice == "data=folder" or (choice.startswith("data=") and only_evaluated) else []
    check_config(compose_train(choice, *root, config="evaluate" if only_evaluated else "train"))


def test_the_signature_read_from_source_is_that_of_the_function() -> None:
    import inspect

    from stylesim.learning.optim import sgd

    read = signature("stylesim.learning.optim.sgd")
    real = inspect.signature(sgd).parameters
    assert list(read) == list(real)
    assert {k for k, (_, needed) in read.items() if needed} == {
        k for k, p in real.items() if p.default is inspect.Parameter.empty
    }


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("loss.temperature=abc", "loss.temperature='abc' does not fit: it should be a valid number"),
        ("+loss.temprature=0.1", "Did you mean 'temperature'?"),
        ("optim.schedule=linear", "optim.schedule='linear' does not fit"),
        ("data=folder", "data.root must be given"),
        ("loss._target_=stylesim.learning.losses.csd_los", "Did you mean 'csd_loss'?"),
        ("~learning.gather", None),
    ],
)
def test_a_wrong_key_or_value_is_refused_in_a_sentence(override: str, said: str | None) -> None:
    cfg = compose_train(override)
    if said is None:
        check_config(cfg)
        return
    with pytest.raises(StylesimError) as error:
        check_config(cfg)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "override",
    [
        "loss.temperature=abc",
        "loss.temprature=0.1",
        "model=csd_vitz",
        "model.weights=/no/such/file",
        "model=csd_vitb model.weights=official",
        "data.root=/no/such/folder",
    ],
)
def test_mistakes_are_refused_before_torch_is_imported(override: str, tmp_path: Path) -> None:
    program = (
        "import sys, stylesim.runtime.launch as launch\n"
        f"sys.argv = ['train', *{override.split()!r}]\n"
        "try:\n    launch.run('train')\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print('CODE', code, 'TORCH', 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "CODE 2 TORCH False" in done.stdout, done.stderr
    assert "\nstylesim: " in "\n" + done.stderr
    assert "Traceback" not in done.stderr


def test_import_of_the_package_brings_no_torch() -> None:
    program = "import sys, stylesim, stylesim.train, stylesim.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_can_still_be_changed_from_the_command_line(name: str) -> None:
    cfg = compose_train(f"experiment={name}", "views=paper", "trainer.max_steps=7", "loss.temperature=0.05")
    assert cfg.views.scale == [0.08, 1.0]
    assert cfg.trainer.max_steps == 7
    assert OmegaConf.to_container(cfg, resolve=True)["loss"]["temperature"] == 0.05  # type: ignore[index, call-overload]


def test_evaluate_composes_with_controls(composed: Callable[..., DictConfig]) -> None:
    cfg = composed("model=frozen_lite0", "+model@controls.colour=color_histogram", config="evaluate")
    check_config(cfg)
    assert cfg.controls.colour.bins == 8
