from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException

from stylesim.core.conf import conf_dir
from stylesim.core.errors import StylesimError
from stylesim.core.files import atomic_path
from stylesim.runtime.hydra_errors import explain


def wrapped(error: Exception) -> InstantiationException:
    """Return an error as Hydra hands on what a constructor raises."""
    outer = InstantiationException("Error in call to target")
    outer.__cause__ = error
    return outer


def test_users_error_is_told_without_hydras_wrapping() -> None:
    assert explain(wrapped(StylesimError("There is no such file."))) == "There is no such file."


def test_error_of_the_program_keeps_its_traceback() -> None:
    assert explain(wrapped(TypeError("unexpected keyword"))) is None
    assert explain(TypeError("unexpected keyword")) is None
    assert explain(FileNotFoundError(2, "No such file or directory", "/x")) is None


def test_place_that_cannot_be_written_is_named() -> None:
    assert explain(PermissionError(13, "Permission denied", "/out")) == (
        "/out cannot be used: Permission denied. Change its permissions, or choose another place."
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("library", [False, True])
def test_full_disk_is_told_with_the_file(library: bool, tmp_path: Path) -> None:
    def write() -> None:
        with atomic_path(tmp_path / "out" / "weights") as partial:
            if library:
                raise RuntimeError("PytorchStreamWriter failed: No space left on device")
            partial.symlink_to("/dev/full")
            partial.write_text("x")

    with pytest.raises(OSError, match="No space left") as error:
        write()
    assert explain(error.value) == (
        f"{tmp_path}/out/weights cannot be used: No space left on device. Free some space, or choose another place."
    )
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=csd_vitz", "model=csd_vitz: there is no such option. Did you mean csd_vit"),
        ("experiment=stylecross", "Options: stylecross_demo, stylecross_full,"),
        ("hydra/launcher=nowhere", "pip install 'stylesim[launchers]'"),
        ("modle=csd_vitb", "modle is not a key. Did you mean 'model'?"),
        ("loss.temprature=1", "temprature is not a key of loss. Did you mean 'temperature'?"),
        ("learning.content_weight=0.1", "content_weight is not a key of learning. It is now loss.content_weight."),
        ("sed=1", "stylesim train --cfg job"),
        ("a=[", "The override a=[ cannot be read. If its value is one text, type 'a=\"[\"'."),
        ("seed", "seed is not an override: type KEY=VALUE"),
        ("seed=1,2", "seed=1,2 has several values. For a list, type 'seed=[1,2]'; for one text, 'seed=\"1,2\"'"),
    ],
)
def test_hydras_errors_are_told_in_a_sentence(override: str, message: str) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"), pytest.raises(HydraException) as error:
        compose("train", [override])
    sentence = explain(error.value, "train")
    assert sentence is not None
    assert message in sentence
    assert "\n" not in sentence
