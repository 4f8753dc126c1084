"""Checkpoints: an encoder is rebuilt from one file and exported in the published format."""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, resize_pos_embed
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import stylesim.encoders
from stylesim.core.errors import WeightsError
from stylesim.encoders import StyleEncoder
from stylesim.encoders.controls import color_histogram, random_lite0
from stylesim.encoders.csd_encoder import CSDEncoder
from stylesim.encoders.csd_factories import csd_clip, csd_lite0, csd_timm
from stylesim.encoders.weights.checkpoint import export_csd, load_checkpoint, save_weights


def tiny(**options: object) -> CSDEncoder:
    return csd_clip(**{"architecture": "ViT-test", "weights": "random", "image_size": 32, **options})


def lite0() -> CSDEncoder:
    return csd_lite0(stages=(0, 2), image_size=32, dim=16, content_head=True)


def timm_stages() -> CSDEncoder:
    return csd_timm(name="resnet18", weights="random", stages=[0, 1], image_size=32, dim=8)


def custom() -> CSDEncoder:
    sizes = {"width": 48, "layers": 1, "heads": 4, "patch": 7, "image": 28, "embed": 20}
    return tiny(architecture=sizes, image_size=35)


@pytest.mark.parametrize("build", [tiny, custom, lite0, timm_stages, color_histogram, random_lite0])
def test_encoder_is_rebuilt_from_its_file_alone(build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    encoder: StyleEncoder = build()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1.01)
    path = tmp_path / "last.partial"
    save_weights(encoder, path, {"step": "12", "samples_seen": "384"})
    monkeypatch.setattr("stylesim.encoders.backbones.lite0.locate", None)  # no other file is needed
    loaded = load_checkpoint(path)
    size = encoder.preprocessing.size
    images = torch.rand(2, 3, size, size)
    assert torch.equal(loaded(images), encoder.eval()(images))
    assert loaded.digest() == encoder.digest()
    assert loaded.preprocessing == encoder.preprocessing
    assert loaded.config == {
        **(encoder.config or {}),
        **({"weights": "random"} if "weights" in (encoder.config or {}) else {}),
    }
    assert loaded.provenance.trained_head
    assert loaded.provenance.weights == str(path)
    assert not loaded.training


def test_untrained_head_is_recorded_as_untrained(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_weights(tiny(), path)
    assert not load_checkpoint(path).provenance.trained_head
    assert not tiny(weights=str(path)).provenance.trained_head


def test_metadata_is_readable_json(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_weights(tiny(), path, {"step": "3"})
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["stylesim"])
    assert about["model"]["_target_"] == "stylesim.encoders.csd_factories.csd_clip"
    assert about["model"]["architecture"] == "ViT-test"
    assert about["metadata"] == {"step": "3"}
    assert about["preprocessing"]["size"] == 32
    assert about["stylesim"]


def test_checkpoint_initialises_a_model_of_the_same_kind(tmp_path: Path):
    encoder, path = lite0(), tmp_path / "a.safetensors"
    save_weights(encoder, path)
    images = torch.randn(2, 3, 32, 32)
    loaded = csd_lite0(weights=str(path), stages=(0, 2), image_size=32, dim=16)
    assert torch.equal(loaded(images), encoder(images))
    with pytest.raises(WeightsError, match="of another shape: style_head"):
        csd_lite0(weights=str(path), stages=(0, 2), image_size=32, dim=17)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("os.system", "which is not part of stylesim.encoders"),
        ("stylesim.train.main", "which is not part of stylesim.encoders"),
        ("stylesim.encoders.weights.locate.locate", "which this version of stylesim does not have"),
        ("stylesim.encoders.nowhere.csd_clip", "which this version of stylesim does not have"),
    ],
)
def test_file_cannot_call_arbitrary_functions(target: str, sentence: str, tmp_path: Path):
    path = tmp_path / "evil.safetensors"
    about = {"model": {"_target_": target, "command": "true"}, "preprocessing": {}, "provenance": {}}
    save_file({"a": torch.zeros(1)}, path, metadata={"stylesim": json.dumps(about)})
    with pytest.raises(WeightsError, match=sentence):
        load_checkpoint(path)


def test_weights_without_their_model_are_refused(tmp_path: Path):
    path = tmp_path / "clip.safetensors"
    save_file({"visual.proj": torch.zeros(4, 2)}, path)
    with pytest.raises(WeightsError, match=r"contains weights \(clip\) but does not state their model"):
        load_checkpoint(path)


def test_encoder_without_a_factory_cannot_be_saved(tmp_path: Path):
    encoder = tiny()
    by_hand = CSDEncoder(encoder.backbone, encoder.style_head.detach(), None, encoder.preprocessing, encoder.provenance)
    with pytest.raises(WeightsError, match="was not built by a factory"):
        save_weights(by_hand, tmp_path / "a.safetensors")


@pytest.mark.parametrize("content_head", [True, False])
def test_published_format_is_written_and_read(content_head: bool, tmp_path: Path):
    encoder, path = tiny(content_head=content_head), tmp_path / "pytorch_model.bin"
    export_csd(encoder, path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(path, weights_only=True)
    assert set(content) == {"model_state_dict", "opt_bb", "opt_proj", "iter", "args"}
    assert all(key.startswith("module.") for key in content["model_state_dict"])
    assert {"module.last_layer_style", "module.last_layer_content"} <= set(content["model_state_dict"])
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(tiny(weights=str(path), content_head=content_head)(images), encoder(images))


class PublishedModel(nn.Module):
    """The published `CSD_CLIP` as its code builds it: CLIP's tower at its native size, and copies of `proj`."""

    def __init__(self) -> None:
        super().__init__()
        vision = CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=8, image_size=32)
        text = CLIPTextCfg(context_length=8, vocab_size=20, width=16, heads=2, layers=1)
        self.backbone: Any = CLIP(32, vision, text, quick_gelu=True).visual
        self.last_layer_style = copy.deepcopy(self.backbone.proj)
        self.last_layer_content = copy.deepcopy(self.backbone.proj)
        self.backbone.proj = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.backbone(images) @ self.last_layer_style, dim=1, p=2)


def load_as_published(path: Path) -> PublishedModel:
    """Load a file as the published code does, but strictly."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        checkpoint = torch.load(path, weights_only=True)
    model = PublishedModel()
    model.load_state_dict({key.removeprefix("module."): v for key, v in checkpoint["model_state_dict"].items()})
    return model.eval()


@pytest.mark.parametrize("image_size", [32, 48, 64, 16])
def test_exported_file_is_loaded_by_the_published_code_whatever_the_image_size(
    image_size: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    encoder, path = tiny(image_size=image_size), tmp_path / "pytorch_model.bin"
    with torch.no_grad():
        encoder.style_head.add_(torch.randn_like(encoder.style_head))
    export_csd(encoder, path)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        descriptors = load_as_published(path)(images)
    expected = tiny()  # open_clip's interpolation, on an encoder for the native size
    state = {"visual." + key: value for key, value in encoder.backbone.state_dict().items()}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=(4, 4))))
    expected.backbone.load_state_dict({key.removeprefix("visual."): value for key, value in state.items()})
    expected.style_head.data = encoder.style_head.data
    torch.testing.assert_close(descriptors, expected(images), atol=1e-5, rtol=1e-5)
    resized = f"images of 32 px only, so the position embeddings for {image_size} px were interpolated"
    assert (resized in caplog.text) == (image_size != 32)


def test_file_that_cannot_be_written_is_a_sentence(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"file/a\.bin cannot be written \(.*\): choose another folder"):
        export_csd(tiny(), tmp_path / "file" / "a.bin")


def test_only_clip_backbones_are_exported(tmp_path: Path):
    with pytest.raises(WeightsError, match="supports only CLIP backbones; CSD resnet18 has another one"):
        export_csd(timm_stages(), tmp_path / "a.bin")


def test_public_names_are_imported_on_first_use():
    for name in stylesim.encoders.__all__:
        assert callable(getattr(stylesim.encoders, name))
    with pytest.raises(AttributeError, match="no attribute 'csd_clipp'"):
        stylesim.encoders.csd_clipp  # noqa: B018
    code = "import stylesim.encoders, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("colour", ["srgb", "raw"])
def test_a_checkpoint_opens_images_as_in_training(colour: str, tmp_path: Path):
    encoder = csd_lite0(weights="random", image_size=32, dim=8)
    digest = encoder.preprocessing.digest()
    encoder.use_colour(colour)  # type: ignore[arg-type]
    assert (encoder.preprocessing.digest() == digest) == (colour == "srgb")
    save_weights(encoder, tmp_path / "weights.safetensors")
    assert load_checkpoint(tmp_path / "weights.safetensors").preprocessing == encoder.preprocessing
