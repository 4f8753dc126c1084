"""VGG16's Gram matrices, loaded from torchvision's file, equal those of plain torch operations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import vgg16

from stylesim.core.errors import WeightsError
from stylesim.encoders.backbones.dead_leaves import dead_leaves
from stylesim.encoders.baselines.vgg_gram import vgg_gram
from stylesim.retrieval.readouts import Pca

LAYERS = [
    (0, 2),
    (5, 7),
    (10, 12, 14),
    (17, 19, 21),
    (24, 26, 28),
]  # of `features`; each group is followed by max pooling


def published_state() -> dict[str, Tensor]:
    """torchvision's keys and shapes: random features, and a classifier of expanded scalars to keep the file small."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in vgg16(weights=None).state_dict().items()}
    draw = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(shape, generator=draw) * (2 / max(shape[1:].numel(), 100)) ** 0.5
        if key.startswith("features.")
        else torch.zeros(1).expand(shape)
        for key, shape in shapes.items()
    }


def independent_gram(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The published `gram` features before normalisation: the 512 x 512 matrix of the last map / 512, flattened."""
    x = images
    for group in LAYERS:
        for layer in group:
            x = F.conv2d(x, state[f"features.{layer}.weight"], state[f"features.{layer}.bias"], padding=1).relu()
        x = F.max_pool2d(x, 2)
    assert x.shape[1:] == (512, images.shape[2] // 32, images.shape[3] // 32)
    x = x.flatten(2)
    return torch.einsum("bji,bki->bjk", x, x).div(512).flatten(1)


@pytest.mark.slow
def test_inner_products_equal_those_of_the_published_grams(tmp_path: Path):
    state, path = published_state(), tmp_path / "vgg16-397923af.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)  # the published file dates from 2017
    encoder, images = vgg_gram(weights=str(path), image_size=64), dead_leaves(3, 64)
    raw = independent_gram(state, images)
    descriptors, full = encoder(images), F.normalize(raw, dim=1)
    assert descriptors.shape == (3, encoder.dim) == (3, 512 * 513 // 2)
    assert (full @ full.T).min() < 0.999  # otherwise equal descriptors would prove nothing
    torch.testing.assert_close(descriptors @ descriptors.T, full @ full.T, atol=1e-4, rtol=0)
    row, column = torch.triu_indices(512, 512)
    weight = torch.where(row == column, 1.0, 2**0.5)
    triangle = full.unflatten(1, (512, 512))[:, row, column] * weight
    torch.testing.assert_close(descriptors, triangle, atol=1e-4, rtol=0)
    reference = vgg_gram(weights=str(path), preset="reference", image_size=64)
    torch.testing.assert_close(reference(images).norm(dim=1), raw.norm(dim=1), atol=0, rtol=1e-4)
    torch.testing.assert_close(F.normalize(reference(images), dim=1), descriptors)
    assert reference.digest() != encoder.digest()


@pytest.mark.slow
def test_published_reduction_is_reproduced_with_its_bug(tmp_path: Path):
    """PCA is fitted on normalised queries; the gallery is projected unnormalised and normalised only afterwards."""
    state, path = published_state(), tmp_path / "vgg16-397923af.pth"
    torch.save(state, path)
    queries, database = dead_leaves(9, 64).split([6, 3])
    fitted = F.normalize(independent_gram(state, queries), dim=1).numpy()
    axes = np.linalg.svd(fitted - fitted.mean(axis=0), full_matrices=False)[2][:4].T
    projected = (fitted - fitted.mean(axis=0)) @ axes
    gallery = (independent_gram(state, database).numpy() - fitted.mean(axis=0)) @ axes
    expected = projected @ (gallery / np.linalg.norm(gallery, axis=1, keepdims=True)).T
    encoder = vgg_gram(weights=str(path), preset="reference", image_size=64)
    readout = Pca(dim=4, fit="query", renormalise=False)
    reduced = readout(encoder(queries).numpy(), encoder(database).numpy())
    np.testing.assert_allclose(reduced[0] @ reduced[1].T, expected, atol=1e-4)


def test_file_of_another_network_is_refused_with_the_keys_that_differ(tmp_path: Path):
    state, path = published_state(), tmp_path / "vgg19.pth"
    state["features.30.weight"] = state.pop("features.28.bias")
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"missing: features\.28\.bias; unexpected: features\.30\.weight"):
        vgg_gram(weights=str(path), image_size=32)


@pytest.mark.parametrize("preset", ["authors", "reference"])
def test_last_map_is_512_x_7_x_7_at_the_presets_size(preset: str):
    with torch.device("meta"):
        encoder = vgg_gram(weights="random", preset=preset)  # type: ignore[arg-type]
    prepare = encoder.preprocessing
    assert (prepare.size, prepare.resize, prepare.interpolation) == (224, 256, "bilinear")
    features = encoder.network.get_submodule("features")
    assert features(torch.zeros(1, 3, 224, 224, device="meta")).shape == (1, 512, 7, 7)


def test_random_weights_separate_images():
    torch.manual_seed(0)
    descriptors = vgg_gram(weights="random", image_size=64)(dead_leaves(4, 64))
    similarities = descriptors @ descriptors.T
    assert similarities.fill_diagonal_(0).max() < 0.99
