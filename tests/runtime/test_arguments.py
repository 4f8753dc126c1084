from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from stylesim.core.errors import ConfigError
from stylesim.runtime.arguments import expand_home, quote_for_lightning, quoted_override, readable_arguments


def read(argument: str) -> object:
    """Return the value that Hydra reads from an argument."""
    return OverridesParser.create().parse_override(argument).value()


@pytest.mark.parametrize(
    "path",
    [
        "/it's",
        "/a=b",
        "/a, b",
        "/a(1)",
        "/a[1]",
        "/a#1",
        "/a~b",
        "/Münch 日本",
        'it"s',
        "/a{1}",
        "~/x",
        "/a;b&c!",
        "/a\\'",
    ],
)
def test_a_path_arrives_as_it_was_typed(path: str) -> None:
    [argument] = readable_arguments([f"out={path}"])
    assert read(argument) == path
    assert read(f'hydra.run.dir="{quote_for_lightning(path)}"') == path, "as Lightning hands it to its ranks"
    assert read(shlex.split(quoted_override(f"out={path}"))[0]) == path, "as the user is told to type it"


@pytest.mark.parametrize(
    "argument",
    [
        "seed=1",
        "a=[1,2]",
        "a={b: 1}",
        "t=range(1,5)",
        "a='x,y'",
        "model=a,b",
        "a=${seed}",
        "~data.probes",
        "+a=null",
        "a=[{",
    ],
)
def test_what_hydra_reads_or_cannot_be_a_text_is_left_as_it_is(argument: str) -> None:
    assert readable_arguments([argument]) == [argument]


def test_an_existing_path_with_a_comma_is_one_path_and_several_paths_stay_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("red, blue").mkdir()
    assert [read(a) for a in readable_arguments(["images=red, blue"])] == ["red, blue"]
    assert readable_arguments(["images=/red,/blue"]) == ["images=/red,/blue"]
    sweep = readable_arguments(["-m", "images=/Münch,/b"])[0]
    assert read(sweep).list[0].text == "/Münch"  # type: ignore[attr-defined]
    assert readable_arguments(["images=[/Mü,/b]"]) == ["images=['/Mü',/b]"]


def test_flags_may_stand_before_overrides_and_overrides_may_have_hyphens() -> None:
    given = ["experiment=paper_table1", "-m", "--cfg", "job", "device=cpu", "--loss.temperature=0.1", "--info"]
    overrides = ["experiment=paper_table1", "device=cpu", "loss.temperature=0.1"]
    assert readable_arguments(given) == [*overrides, "-m", "--cfg", "job", "--info"]


def test_an_argument_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"images=/\\udcff is not UTF-8"):
        readable_arguments(["images=/\udcff"])


def test_tilde_is_the_home_folder_in_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert readable_arguments(["hydra.run.dir=~/run"]) == ["hydra.run.dir=/home/me/run"]
    cfg = OmegaConf.create(
        {"out": "~/out", "data": {"root": ["~/a", "/b"], "weights": {"~/c": 2}}, "x": "${out}", "y": "a~b", "z": "???"}
    )
    OmegaConf.set_readonly(cfg, True)
    expand_home(cfg)
    assert cfg.out == cfg.x == "/home/me/out"
    assert cfg.data == {"root": ["/home/me/a", "/b"], "weights": {"/home/me/c": 2}}
    assert cfg.y == "a~b"
