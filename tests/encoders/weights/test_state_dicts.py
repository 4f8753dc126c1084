"""State dicts inside checkpoints of other programs: found where only one is meant, refused where several could be."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stylesim.core.errors import WeightsError
from stylesim.encoders.csd_encoder import CSDEncoder
from stylesim.encoders.csd_factories import csd_clip, csd_timm
from stylesim.encoders.weights.state_dicts import strip_prefixes
from stylesim.encoders.weights.weight_formats import read_weights

State = Mapping[str, Tensor]


def tiny(**options: Any) -> CSDEncoder:
    return csd_clip(**{"architecture": "ViT-test", "weights": "random", "image_size": 32, **options})


def csd_state(encoder: CSDEncoder) -> dict[str, Tensor]:
    state = encoder.state_dict()
    style = state.pop("style_head")
    return {**state, "last_layer_style": style, "last_layer_content": style}


def prefixed(*prefixes: str) -> Callable[[State], dict[str, Tensor]]:
    return lambda state: {"".join(prefixes) + key: value for key, value in state.items()}


def optimiser() -> dict[str, Any]:
    parameter = nn.Parameter(torch.zeros(3))
    adam = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(3)
    adam.step()
    return adam.state_dict()


WRAPPERS: dict[str, Callable[[State], Any]] = {
    "model": lambda state: {"model": state},
    "state_dict": lambda state: {"state_dict": state},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "any name": lambda state: {"student_net": state, "epoch": 3},
    "beside an optimiser": lambda state: {"model": state, "optimizer": optimiser(), "epoch": 3, "loss": 0.5},
    "beside numbers": lambda state: {"net": state, "step": torch.tensor(3.0), "best": {"a": torch.ones(())}},
    "beside random state": lambda state: {
        "net": state,
        "rng": torch.get_rng_state(),
        "a": {"b": torch.get_rng_state()},
    },
    "beside arguments": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
    "nested": lambda state: {"checkpoint": {"model": {"state_dict": state}, "step": 3}},
    "the same one twice": lambda state: {"model": state, "state_dict": state},
    "another program's Lightning": lambda state: {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": prefixed("model.")(state),
        "optimizer_states": [optimiser()],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.1)}},
    },
    "DDP": prefixed("module."),
    "torch.compile": prefixed("_orig_mod."),
    "DDP of torch.compile": prefixed("module.", "_orig_mod."),
    "torch.compile of DDP": prefixed("_orig_mod.", "module."),
    "DDP twice": prefixed("module.", "module."),
    "FSDP": prefixed("_fsdp_wrapped_module."),
    "model inside a module": prefixed("model."),
    "compiled part": lambda state: {key.replace("backbone.", "backbone._orig_mod."): v for key, v in state.items()},
    "checkpointed blocks": lambda state: {
        key.replace("resblocks.0.", "resblocks.0._checkpoint_wrapped_module."): v for key, v in state.items()
    },
    "AveragedModel": lambda state: {**prefixed("module.")(state), "n_averaged": torch.tensor(4)},
    "wrapped and prefixed": lambda state: {"model": prefixed("module.", "_orig_mod.")(state), "optimizer": optimiser()},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_weights_are_those_of_the_bare_model(wrapper: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    encoder, path = tiny(), tmp_path / "wrapped.pth"
    torch.save(WRAPPERS[wrapper](csd_state(encoder)), path)
    loaded = tiny(weights=str(path))
    assert loaded.digest() == encoder.digest()
    assert loaded.provenance.trained_head
    assert str(path) in caplog.text
    assert "took the weights" in caplog.text


def test_unwrapping_is_said_with_the_names(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    path = tmp_path / "a.pth"
    torch.save({"ckpt": {"model": prefixed("module.", "_orig_mod.")(csd_state(tiny()))}}, path)
    read_weights(path)
    (record,) = caplog.records
    assert record.message == (
        f"{path}: took the weights in its entry ckpt.model, without the prefix _orig_mod and module of their keys."
    )


def test_bare_state_dict_is_read_silently(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    torch.save(csd_state(tiny()), tmp_path / "a.pth")
    read_weights(tmp_path / "a.pth")
    assert not caplog.records


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (lambda state: {"model": state, "model_ema": dict(state)}, r"model \(\d+ entries\), model_ema \(\d+ entries\)"),
        (lambda state: {"teacher": state, "student": dict(state)}, r"teacher \(\d+ entries\), student"),
        (lambda state: {**state, "model": dict(state)}, r"the top level \(\d+ entries\), model \(\d+ entries\)"),
        (lambda state: {"a": {"model": state}, "b": {"model": dict(state)}}, r"a\.model \(\d+ entries\), b\.model"),
    ],
)
def test_several_state_dicts_are_refused_with_their_names(content: Callable[[State], Any], found: str, tmp_path: Path):
    path = tmp_path / "two.pth"
    torch.save(content(csd_state(tiny())), path)
    with pytest.raises(WeightsError, match=f"contains several state dicts, .*: {found}"):
        read_weights(path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_wrapped_and_bare_tensors_of_one_name_are_refused(prefix: str, tmp_path: Path):
    path, state = tmp_path / "both.pth", csd_state(tiny())
    torch.save({**state, **prefixed(prefix)(state)}, path)
    with pytest.raises(WeightsError, match=rf"both \S+ and {prefix}\S+, which are the same tensor"):
        read_weights(path)


def test_keys_that_only_look_like_prefixes_stay():
    state = {"module_list.0.weight": torch.zeros(1), "model.a": torch.zeros(1), "block._module.b": torch.zeros(1)}
    assert strip_prefixes(dict(state), Path("a")) == (state, [])


def test_timm_backbone_inside_a_training_checkpoint_is_read(tmp_path: Path):
    import timm

    network, path = timm.create_model("resnet18"), tmp_path / "resnet.pth"
    torch.save({"model": prefixed("module.")(network.state_dict()), "optimizer": optimiser()}, path)
    encoder = csd_timm(name="resnet18", weights=str(path), image_size=32, dim=8)
    network.eval().reset_classifier(0)  # type: ignore[operator]
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder.features(images), network(images))
