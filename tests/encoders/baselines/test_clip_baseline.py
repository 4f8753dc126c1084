"""The CLIP baseline equals open_clip's own model, from files in every format in which CLIP is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from clip_files import torchscript, transformers_state
from open_clip import create_model, image_transform
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, resize_pos_embed
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from stylesim.core.errors import ConfigError, WeightsError
from stylesim.encoders.backbones.clip_tower import MEAN, STD
from stylesim.encoders.baselines.clip_baseline import clip_vit
from stylesim.encoders.controls import random_vit
from stylesim.encoders.csd_factories import csd_clip
from stylesim.encoders.weights.checkpoint import export_csd, load_checkpoint, save_weights

PRESETS = ("authors", "reference")
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def open_clip_model(image_size: int = 32) -> Any:
    """open_clip's CLIP in the shape of ViT-test, its weights rounded to half precision as in OpenAI's file."""
    vision = CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=8, image_size=image_size)
    text = CLIPTextCfg(context_length=8, vocab_size=20, width=16, heads=2, layers=1)
    torch.manual_seed(1)
    model = CLIP(32, vision, text, quick_gelu=True)
    with torch.no_grad():
        for parameter in model.visual.parameters():  # default norms and biases would hide one that is not loaded
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.half().float().eval()


def write(model: Any, kind: str, path: Path) -> Path:
    if kind == "open_clip":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    elif kind == "transformers":
        tower = model.visual.state_dict()
        save_file(transformers_state(tower, tower.pop("proj")), path)
    else:
        torchscript(model.state_dict(), path)
    return path


@torch.no_grad()
def expected(model: Any, preset: str, images: torch.Tensor) -> torch.Tensor:
    if preset == "authors":
        return model.encode_image(images, normalize=True)
    seen: list[torch.Tensor] = []
    hook = model.visual.transformer.resblocks[-1].register_forward_hook(lambda module, args, out: seen.append(out))
    model.visual(images)
    hook.remove()
    return F.normalize(seen[0][:, 0], dim=-1)


@pytest.mark.parametrize("kind", ["open_clip", "transformers", "torchscript"])
@pytest.mark.parametrize("preset", PRESETS)
def test_both_presets_equal_open_clip(preset: Any, kind: str, tmp_path: Path):
    model = open_clip_model()
    path = write(model, kind, tmp_path / "clip.bin")
    encoder = clip_vit(architecture="ViT-test", weights=str(path), preset=preset)
    assert encoder.dim == {"authors": 32, "reference": 64}[preset]
    torch.testing.assert_close(encoder(IMAGES), expected(model, preset, IMAGES), atol=1e-5, rtol=1e-5)
    assert encoder.provenance.digest
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def meta_model(name: str) -> Any:
    """The model of open_clip's factory, without storage."""
    with torch.device("meta"):
        return create_model(f"{name}-quickgelu", pretrained=None, device="meta")


@pytest.mark.slow
def test_full_vit_b_equals_open_clip_on_an_image(tmp_path: Path):
    model = meta_model("ViT-B-16").eval()
    model.visual.to_empty(device="cpu")
    for name, parameter in model.visual.named_parameters():
        nn.init.normal_(parameter, mean=float("ln_" in name), std=0.02)
    visual = {f"visual.{key}": value for key, value in model.visual.state_dict().items()}
    save_file(visual, tmp_path / "open_clip_model.safetensors")
    encoder = clip_vit(weights=str(tmp_path / "open_clip_model.safetensors"))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (231, 307, 3), dtype=np.uint8))
    reference = expected(model, "authors", image_transform(224, is_train=False, mean=MEAN, std=STD)(image)[None])  # type: ignore[operator]
    torch.testing.assert_close(encoder.encode([image]), reference, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14"])
def test_keys_and_shapes_equal_the_published_files(name: str):
    published = {f"network.{key}": value.shape for key, value in meta_model(name).visual.state_dict().items()}
    with torch.device("meta"):
        encoder = random_vit(architecture=name)
    assert {key: value.shape for key, value in encoder.state_dict().items()} == published


@pytest.mark.parametrize("preset", PRESETS)
def test_position_embeddings_are_interpolated_to_any_size(preset: Any, tmp_path: Path):
    small, large = open_clip_model(), open_clip_model(image_size=56)
    state = small.state_dict()
    resize_pos_embed(state, large)
    large.load_state_dict(state)
    path = write(small, "open_clip", tmp_path / "clip.pt")
    encoder = clip_vit(architecture="ViT-test", weights=str(path), preset=preset, image_size=56)
    assert encoder.preprocessing.size == 56
    images = torch.randn(2, 3, 56, 56)
    torch.testing.assert_close(encoder(images), expected(large, preset, images), atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="image_size=50 is not a multiple of 8"):
        clip_vit(architecture="ViT-test", weights="random", image_size=50)


@pytest.mark.parametrize(("height", "width"), [(31, 97), (64, 33), (500, 333), (224, 225)])
def test_pixels_equal_open_clips_transform(height: int, width: int):
    image = Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8))
    preprocessing = random_vit(architecture="ViT-test", image_size=56).preprocessing
    expected_pixels = image_transform(56, is_train=False, mean=MEAN, std=STD)(image)  # type: ignore[operator]
    torch.testing.assert_close(preprocessing.normalise(preprocessing(image)), expected_pixels, atol=1e-6, rtol=0)


def test_file_of_another_model_is_refused_with_the_keys_that_differ(tmp_path: Path):
    path = tmp_path / "other.pt"
    torch.save(timm.create_model("resnet18").state_dict(), path)
    with pytest.raises(WeightsError, match=r"keys differ: missing: class_embedding, .*unexpected: conv1|bn1"):
        clip_vit(architecture="ViT-test", weights=str(path))
    write(open_clip_model(), "open_clip", path)
    sizes = {"width": 64, "layers": 3, "heads": 2, "patch": 4, "image": 16, "embed": 32}
    with pytest.raises(WeightsError, match=r"missing: transformer\.resblocks\.2.*of another shape: conv1\.weight"):
        clip_vit(architecture=sizes, weights=str(path))
    export_csd(csd_clip(architecture="ViT-test", weights="random", image_size=32), path)
    with pytest.raises(WeightsError, match="is a csd checkpoint, not a CLIP file"):
        clip_vit(architecture="ViT-test", weights=str(path))
    with pytest.raises(ConfigError, match="preset must be one of authors, reference, got 'paper'"):
        clip_vit(architecture="ViT-test", weights="random", preset="paper")  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", PRESETS)
def test_checkpoint_gives_the_same_descriptors(preset: Any, tmp_path: Path):
    encoder = clip_vit(architecture="ViT-test", weights="random", preset=preset)
    save_weights(encoder, tmp_path / "clip.safetensors")
    assert torch.equal(load_checkpoint(tmp_path / "clip.safetensors")(IMAGES), encoder(IMAGES))
