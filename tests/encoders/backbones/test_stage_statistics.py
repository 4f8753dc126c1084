"""Stage statistics, Gram matrices and timm backbones: against their formulas, and on real networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylesim.core.errors import ConfigError, WeightsError
from stylesim.encoders.backbones.dead_leaves import dead_leaves
from stylesim.encoders.backbones.lite0 import imagenet_weights, lite0_network, lite0_preprocessing
from stylesim.encoders.backbones.palette import Palette
from stylesim.encoders.backbones.stage_statistics import Stages, StageStatistics, gram, statistics
from stylesim.encoders.csd_factories import csd_lite0, csd_timm


def test_statistics_are_means_and_standard_deviations_over_pixels():
    maps = torch.randn(2, 5, 4, 6) * 3 + 1
    mean, deviation = statistics(maps)
    flat = maps.double().numpy().reshape(2, 5, -1)
    np.testing.assert_allclose(mean, flat.mean(-1), atol=1e-6)
    np.testing.assert_allclose(deviation, flat.std(-1), atol=1e-5)


def test_constant_feature_map_has_finite_gradients():
    maps = torch.ones(1, 2, 4, 4, requires_grad=True)
    torch.cat(statistics(maps)).sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


def test_gram_preserves_inner_products_of_the_full_matrices():
    first, second = torch.randn(2, 1, 6, 3, 5)
    full = [(m[0].flatten(1) @ m[0].flatten(1).T / 15) for m in (first, second)]
    assert gram(first).shape == (1, 21)
    torch.testing.assert_close((gram(first) * gram(second)).sum(), (full[0] * full[1]).sum())


def test_removing_later_layers_does_not_change_features():
    network = lite0_network()
    images = torch.randn(2, 3, 64, 64)
    expected = network.forward_intermediates(images, indices=[0, 1, 2, 3], intermediates_only=True)  # type: ignore[operator]
    before = sum(p.numel() for p in network.parameters())
    stages = Stages(network, [3, 1, 0, 2])
    assert all(torch.equal(a, b) for a, b in zip(stages(images), expected, strict=True))
    assert [m.shape[1:] for m in stages(images)] == [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4)]
    assert sum(p.numel() for p in stages.parameters()) < before / 6


def test_features_are_standardised_over_the_synthetic_images():
    preprocessing = lite0_preprocessing(48)
    backbone = StageStatistics(lite0_network(imagenet_weights()), (0, 2), preprocessing).eval()
    with torch.no_grad():
        features = backbone(preprocessing.normalise(dead_leaves(64, 48)))
    assert features.shape == (64, 2 * (16 + 40))
    torch.testing.assert_close(features.mean(0), torch.zeros(112), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(0), torch.ones(112), atol=1e-3, rtol=0)
    assert {"centre", "scale"} <= set(backbone.state_dict())


def test_palette_follows_the_statistics():
    preprocessing = lite0_preprocessing(32)
    images = preprocessing.normalise(dead_leaves(4, 32))
    with torch.no_grad():
        plain, both = (StageStatistics(lite0_network(), (0, 1), preprocessing, n) for n in (None, 8))
        both.load_state_dict(plain.state_dict() | {k: v for k, v in both.state_dict().items() if v.shape == (104,)})
        assert both.raw(images).shape == (4, 80 + 24)
        torch.testing.assert_close(both.raw(images)[:, :80], plain.raw(images))
        torch.testing.assert_close(both.raw(images)[:, 80:], Palette(8, preprocessing)(images))


def test_bfloat16_weights_give_similar_descriptors():
    encoder = csd_lite0(weights="random", image_size=32)
    images = encoder.preprocessing.normalise(dead_leaves(4, 32))
    with torch.no_grad():
        full, half = encoder(images), encoder.to(torch.bfloat16)(images.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (full * half.float()).sum(1).min() > 0.98


@pytest.mark.parametrize(
    ("name", "width"), [("resnet18", 2 * (64 + 64 + 128 + 256)), ("convnext_atto", 2 * (40 + 80 + 160))]
)
def test_timm_networks_are_read_at_their_stages(name: str, width: int):
    encoder = csd_timm(name=name, weights="random", stages=True, image_size=64, dim=16)
    assert encoder.style_head.shape == (width, 16)
    assert encoder(torch.randn(2, 3, 64, 64)).isfinite().all()


def test_missing_stages_are_refused():
    with pytest.raises(ConfigError, match=r"cannot be read at stages \[0, 9\]"):
        csd_timm(name="resnet18", weights="random", stages=[0, 9], image_size=32)


def test_unknown_timm_model_and_missing_weights_are_explained():
    with pytest.raises(ConfigError, match=r"no model 'resnet1x'\. Did you mean one of resnet1"):
        csd_timm(name="resnet1x", weights="random")
    with pytest.raises(WeightsError, match=r"run `hf download timm/resnet18\.\w+`, then set model.weights to its file"):
        csd_timm(name="resnet18")


def test_timm_preprocessing_equals_timms_transform():
    import timm
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    encoder = csd_timm(name="vit_tiny_patch16_224", weights="random", dim=8)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8))
    config = resolve_data_config(timm.get_pretrained_cfg("vit_tiny_patch16_224").to_dict())  # type: ignore[union-attr]
    expected = create_transform(**config)(image)  # type: ignore[operator]
    pixels = encoder.preprocessing.normalise(encoder.preprocessing(image))
    torch.testing.assert_close(pixels, expected)
