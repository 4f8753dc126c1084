"""Weight files in their real formats with random weights: detected from their content, loaded strictly."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from clip_files import torchscript, transformers_state
from safetensors.torch import save_file
from torch import Tensor

from stylesim.core.errors import WeightsError
from stylesim.encoders.csd_encoder import CSDEncoder
from stylesim.encoders.csd_factories import csd_clip, csd_lite0, csd_timm
from stylesim.encoders.weights.weight_formats import read_weights

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def tiny(weights: str | Path = "random", content_head: bool = True, image_size: int = 32) -> CSDEncoder:
    return csd_clip(architecture="ViT-test", weights=str(weights), image_size=image_size, content_head=content_head)


def published(encoder: CSDEncoder) -> dict[str, object]:
    """The checkpoint that the authors' training writes, with the fields of the released pytorch_model.bin."""
    names = {"style_head": "last_layer_style", "content_head": "last_layer_content"}
    state = OrderedDict((f"module.{names.get(k, k)}", v) for k, v in encoder.state_dict().items())
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.9).state_dict()
    args = argparse.Namespace(arch="vit_base", lam_sup=5.0, multiscale=False, content_proj_head="default")
    return {"model_state_dict": state, "opt_bb": optimiser, "opt_proj": optimiser, "iter": 7, "args": args}


def clip_state(encoder: CSDEncoder) -> dict[str, Tensor]:
    """State dict with OpenAI's and open_clip's names, and a stub of the text tower."""
    visual = {f"visual.{k}": v.clone() for k, v in encoder.backbone.state_dict().items()}
    text = {
        "logit_scale": torch.tensor(4.6),
        "token_embedding.weight": torch.randn(9, 8),
        "positional_embedding": torch.randn(7, 8),
    }
    return {**visual, "visual.proj": encoder.style_head.detach().clone(), **text}


def test_published_checkpoint_gives_the_same_descriptors(tmp_path: Path):
    encoder = tiny()
    with torch.no_grad():
        encoder.style_head.add_(torch.randn_like(encoder.style_head))
    path = tmp_path / "weights.whatever"
    torch.save(published(encoder), path)
    loaded = tiny(path)
    assert read_weights(path).kind == "csd"
    assert torch.equal(loaded(IMAGES), encoder(IMAGES))
    torch.testing.assert_close(loaded.heads(IMAGES), encoder.heads(IMAGES), atol=0, rtol=0)
    assert loaded.provenance.trained_head
    assert loaded.digest() == encoder.digest()
    assert torch.equal(tiny(path, content_head=False)(IMAGES), encoder(IMAGES))


@pytest.mark.parametrize("kind", ["open_clip", "open_clip safetensors", "plain", "transformers", "torchscript"])
def test_clip_files_give_the_backbone_and_copies_of_proj(kind: str, tmp_path: Path):
    encoder, path = tiny(), tmp_path / "clip.bin"
    if kind == "open_clip":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in clip_state(encoder).items()}}, path)
    elif kind == "open_clip safetensors":
        save_file(clip_state(encoder), path)
    elif kind == "plain":
        torch.save(clip_state(encoder), path)
    elif kind == "transformers":
        save_file(transformers_state(encoder.backbone.state_dict(), encoder.style_head.detach()), path)
    else:
        torchscript(clip_state(encoder), path)
    loaded = tiny(path)
    tolerance = 5e-3 if kind == "torchscript" else 0  # half precision
    torch.testing.assert_close(loaded.features(IMAGES), encoder.features(IMAGES), atol=tolerance, rtol=tolerance)
    assert loaded.content_head is not None
    assert torch.equal(loaded.style_head, loaded.content_head)
    torch.testing.assert_close(loaded.style_head, encoder.style_head, atol=tolerance, rtol=tolerance)
    assert loaded.style_head.dtype == torch.float32
    assert not loaded.provenance.trained_head


def test_lightning_checkpoint_is_read(tmp_path: Path):
    encoder, path = tiny(), tmp_path / "last.ckpt"
    state = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    torch.save({"pytorch-lightning_version": "2.6.6", "global_step": 3, "state_dict": state}, path)
    assert torch.equal(tiny(path)(IMAGES), encoder(IMAGES))
    assert tiny(path).provenance.trained_head


def test_position_embeddings_are_interpolated_to_the_image_size(tmp_path: Path):
    path = tmp_path / "csd.bin"
    torch.save(published(tiny()), path)
    loaded = tiny(path, image_size=48)
    assert loaded.backbone.get_parameter("positional_embedding").shape == (1 + 6 * 6, 64)
    assert loaded(torch.randn(1, 3, 48, 48)).isfinite().all()


def test_timm_weights_are_loaded_into_the_backbone_only(tmp_path: Path):
    import timm

    network, path = timm.create_model("resnet18"), tmp_path / "resnet.safetensors"
    save_file(network.state_dict(), path)
    pooled = csd_timm(name="resnet18", weights=str(path), image_size=32, dim=8)
    images = torch.randn(2, 3, 32, 32)
    network.eval().reset_classifier(0)  # type: ignore[operator]
    torch.testing.assert_close(pooled.features(images), network(images))
    assert not pooled.provenance.trained_head
    assert pooled.provenance.digest
    with pytest.raises(WeightsError, match=r"keys differ: missing: .*; unexpected: .* and \d+ more"):
        csd_timm(name="convnext_atto", weights=str(path), image_size=32)


def test_wrong_file_is_refused_with_the_keys_that_differ(tmp_path: Path):
    content = published(tiny())
    state = content["model_state_dict"]
    assert isinstance(state, dict)
    state["module.backbone.extra"] = torch.zeros(1)
    del state["module.backbone.ln_post.bias"]
    state["module.last_layer_style"] = torch.zeros(64, 31)
    path = tmp_path / "wrong.bin"
    torch.save(content, path)
    with pytest.raises(WeightsError) as refusal:
        tiny(path)
    message = str(refusal.value)
    assert "missing: backbone.ln_post.bias" in message
    assert "unexpected: backbone.extra" in message
    assert "of another shape: style_head [64, 31] for [64, 32]" in message
    assert str(path) in message
    with pytest.raises(WeightsError, match="keys differ"):
        csd_lite0(weights=str(path))


@pytest.mark.parametrize("form", ["zip", "safetensors"])
@pytest.mark.parametrize("keep", [0, 5, 400, -100])
def test_truncated_file_is_refused(form: str, keep: int, tmp_path: Path):
    path = tmp_path / "cut.bin"
    if form == "zip":
        torch.save(published(tiny()), path)
    else:
        save_file(clip_state(tiny()), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"cut\.bin cannot be read as weights \(.*truncated"):
        tiny(path)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("/tmp/stylesim-was-here"),)  # type: ignore[return-value]


def test_pickle_that_runs_code_is_refused(tmp_path: Path):
    path = tmp_path / "evil.bin"
    torch.save({**published(tiny()), "args": Payload()}, path)
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        tiny(path)
    assert not Path("/tmp/stylesim-was-here").exists()


def test_files_without_weights_are_refused(tmp_path: Path):
    path = tmp_path / "a.bin"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(WeightsError, match="must contain a dictionary of weights, got a list"):
        read_weights(path)
    torch.save({"loss": 1.0}, path)
    with pytest.raises(WeightsError, match="contains no tensors, only loss"):
        read_weights(path)
    with pytest.raises(WeightsError, match="no weight file"):
        read_weights(tmp_path / "none.bin")
