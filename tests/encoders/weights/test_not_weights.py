"""Files that are taken for weights: each is refused with what it is and what to do."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stylesim.core.errors import WeightsError
from stylesim.encoders.controls import color_histogram
from stylesim.encoders.csd_factories import csd_clip, csd_lite0
from stylesim.encoders.weights.checkpoint import load_checkpoint, save_weights
from stylesim.encoders.weights.weight_formats import read_weights

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:40e92fad63a3\nsize 2438228893\n"
PAGE = b"\n<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>"


def npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, a=np.zeros(3))
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.pth"))
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"it is empty, 0 bytes long"),
        (LFS, r"it is a Git LFS pointer, not the file itself: run `git lfs pull`"),
        (PAGE, r"it is a web page, .* download the file again"),
        (b"\xef\xbb\xbf<html>", r"it is a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', r"it is a web page"),
        (b'{"error": "Repository not found"}', r"it is JSON text"),
        (json.dumps({"metadata": {}, "weight_map": {"a": "1.safetensors"}}).encode(), r"model in several files"),
        (json.dumps({"metadata": {"a": "b" * 9000}, "weight_map": {}}).encode(), r"model in several files"),
        (b"\x1f\x8b\x08\x00", r"it is compressed with gzip: unpack it"),
        (tar(), r"it is a tar archive: unpack it"),
        (b"GGUF\x03\x00\x00\x00", r"it is a GGUF file"),
        (b"\x89HDF\r\n\x1a\n", r"it is an HDF5 file of Keras"),
        (npz(), r"truncated, or in an unknown format"),
        (b"\x89PNG\r\n\x1a\n", r"truncated, or in an unknown format"),
        (b"\x00" * 5000, r"truncated, or in an unknown format"),
        (np.random.default_rng(0).bytes(5000), r"truncated, or in an unknown format"),
        (b"\xff" * 7 + b"\x7f{}", r"truncated, or in an unknown format"),  # safetensors with a header of exabytes
    ],
)
def test_file_of_another_kind_is_refused_with_its_kind(content: bytes, sentence: str, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for read in (read_weights, load_checkpoint):
        with pytest.raises(WeightsError, match=rf"model\.safetensors cannot be read as weights \(.*{sentence}"):
            read(path)


def test_pickled_model_is_refused_without_running_its_code(tmp_path: Path):
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(
        WeightsError, match=r"Python objects \(torch\.nn\.modules\.linear\.Linear\).* save the state_dict"
    ):
        read_weights(tmp_path / "model.pt")
    (tmp_path / "old.pkl").write_bytes(pickle.dumps({"a": Path("b")}))
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        read_weights(tmp_path / "old.pkl")


@pytest.mark.parametrize(
    "metadata", [{"format": "pt"}, {"format": "tf"}, {"modelspec.title": "CLIP"}, {"stylesim": "{}"}]
)
def test_metadata_of_other_programs_are_ignored(metadata: dict[str, str], tmp_path: Path):
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "a.safetensors", metadata=metadata)
    file = read_weights(tmp_path / "a.safetensors")
    assert (file.kind, file.metadata) == ("backbone", {})


@pytest.mark.parametrize("metadata", ["[]", "not JSON", '{"model": "csd_clip"}', '{"model": {}}', '{"step": 3}'])
def test_damaged_metadata_are_refused(metadata: str, tmp_path: Path):
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "a.safetensors", metadata={"stylesim": metadata})
    with pytest.raises(WeightsError, match=r"a\.safetensors"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_checkpoint_of_a_later_version_is_refused(tmp_path: Path):
    encoder = color_histogram(bins=2)
    save_weights(encoder, tmp_path / "a.safetensors")
    file = read_weights(tmp_path / "a.safetensors")
    metadata = {**file.metadata, "provenance": {**file.metadata["provenance"], "new_field": 1}}
    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors", metadata={"stylesim": json.dumps(metadata)})
    with pytest.raises(WeightsError, match=r"b\.safetensors"):
        load_checkpoint(tmp_path / "b.safetensors")


def quantised(value: Tensor) -> Tensor:
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda value: (value * 100).to(torch.int8), "int8"),
        (lambda value: (value * 100).to(torch.uint8), "uint8"),
        (lambda value: (value * 100).to(torch.int32), "int32"),
        (lambda value: (value * 100).to(torch.int64), "int64"),
        (lambda value: value > 0, "bool"),
        (lambda value: value.to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (lambda value: value.to(torch.float8_e5m2), "float8_e5m2"),
        (lambda value: value.to(torch.complex64), "complex64"),
        (quantised, "qint8"),
    ],
)
def test_weights_that_are_no_floating_point_numbers_are_refused(
    change: Callable[[Tensor], Tensor], name: str, tmp_path: Path
):
    encoder, path = csd_clip(architecture="ViT-test", weights="random", image_size=32), tmp_path / "a.pth"
    state = encoder.state_dict()
    state["style_head"] = change(state["style_head"])
    torch.save(state, path)
    with pytest.raises(WeightsError, match=rf"quantised or damaged: style_head \({name}\)"):
        csd_clip(architecture="ViT-test", weights=str(path), image_size=32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_floating_point_weights_of_any_width_are_read_as_float32(dtype: torch.dtype, tmp_path: Path):
    encoder, path = csd_clip(architecture="ViT-test", weights="random", image_size=32), tmp_path / "a.pth"
    torch.save({key: value.to(dtype) for key, value in encoder.state_dict().items()}, path)
    loaded = csd_clip(architecture="ViT-test", weights=str(path), image_size=32)
    assert loaded.style_head.dtype == torch.float32
    assert torch.equal(loaded.style_head, encoder.style_head.to(dtype).float())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path):
    encoder, path = csd_clip(architecture="ViT-test", weights="random", image_size=32), tmp_path / "a.pth"
    state = encoder.state_dict()
    state["style_head"][3, 4] = value
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"contains NaN or infinity, .*: style_head"):
        csd_clip(architecture="ViT-test", weights=str(path), image_size=32)


def test_integer_weights_of_lite0_are_refused(tmp_path: Path):
    import timm

    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    key = next(key for key in state if key.endswith("weight"))
    torch.save({**state, key: state[key].to(torch.int8)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="quantised or damaged: "):
        csd_lite0(weights=str(tmp_path / "a.pth"))
