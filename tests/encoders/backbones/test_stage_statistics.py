"""Stage statistics and Gram matrices against their formulas, on maps and on real networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylesim.core.errors import StylesimError
from stylesim.encoders.backbones.lite0 import imagenet_weights, lite0_network, lite0_preprocessing
from stylesim.encoders.backbones.stage_statistics import Palette, Stages, StageStatistics, dead_leaves, gram, statistics
from stylesim.encoders.csd_factories import csd_lite0, csd_timm


def test_statistics_are_means_and_deviations_over_pixels():
    maps = torch.randn(2, 5, 4, 6) * 3 + 1
    mean, deviation = statistics(maps)
    flat = maps.double().numpy().reshape(2, 5, -1)
    np.testing.assert_allclose(mean, flat.mean(-1), atol=1e-6)
    np.testing.assert_allclose(deviation, flat.std(-1), atol=1e-5)


def test_a_flat_map_has_finite_gradients():
    maps = torch.ones(1, 2, 4, 4, requires_grad=True)
    torch.cat(statistics(maps)).sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


def test_gram_keeps_the_inner_products_of_the_full_matrices():
    first, second = torch.randn(2, 1, 6, 3, 5)
    full = [(m[0].flatten(1) @ m[0].flatten(1).T / 15) for m in (first, second)]
    assert gram(first).shape == (1, 21)
    torch.testing.assert_close((gram(first) * gram(second)).sum(), (full[0] * full[1]).sum())


def test_cutting_behind_the_last_stage_changes_no_feature():
    network = lite0_network()
    images = torch.randn(2, 3, 64, 64)
    whole = network.forward_intermediates(images, indices=[0, 1, 2, 3], intermediates_only=True)  # type: ignore[operator]
    before = sum(p.numel() for p in network.parameters())
    cut = Stages(network, [3, 1, 0, 2])
    assert all(torch.equal(a, b) for a, b in zip(cut(images), whole, strict=True))
    assert [m.shape[1:] for m in cut(images)] == [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4)]
    assert sum(p.numel() for p in cut.parameters()) < before / 6


def test_features_are_standardised_over_the_synthetic_pictures():
    preprocessing = lite0_preprocessing(48)
    backbone = StageStatistics(lite0_network(imagenet_weights()), (0, 2), preprocessing).eval()
    with torch.no_grad():
        features = backbone(preprocessing.normalise(dead_leaves(64, 48)))
    assert features.shape == (64, 2 * (16 + 40))
    torch.testing.assert_close(features.mean(0), torch.zeros(112), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(0), torch.ones(112), atol=1e-3, rtol=0)
    assert {"centre", "scale"} <= set(backbone.state_dict())


def test_a_palette_is_numpys_histogram_where_the_values_are_levels():
    preprocessing = lite0_preprocessing(20)
    levels = np.random.default_rng(0).integers(0, 6, (3, 3, 20, 20))
    images = preprocessing.normalise(torch.from_numpy(levels / 5).float())
    shares = np.sqrt([[np.bincount(channel.ravel(), minlength=6) / 400 for channel in image] for image in levels])
    torch.testing.assert_close(
        Palette(6, preprocessing)(images), torch.from_numpy(shares).float().flatten(1), atol=2e-3, rtol=0
    )


def test_a_value_between_two_levels_counts_for_both():
    preprocessing = lite0_preprocessing(4)
    grey = preprocessing.normalise(torch.full((1, 3, 4, 4), 0.3))
    squares = Palette(5, preprocessing)(grey).square().unflatten(1, (3, 5))
    torch.testing.assert_close(squares, torch.tensor([0, 0.8, 0.2, 0, 0]).expand(1, 3, 5), atol=1e-5, rtol=0)


@given(st.integers(0, 2**32 - 1), st.integers(2, 64))
def test_a_palette_is_of_length_one_a_channel_and_blind_to_places(seed: int, levels: int):
    preprocessing = lite0_preprocessing(8)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    palettes = Palette(levels, preprocessing)(images)
    torch.testing.assert_close(palettes.unflatten(1, (3, levels)).norm(dim=2), torch.ones(2, 3))
    shuffled = images.flatten(2)[..., torch.randperm(64)].unflatten(2, (8, 8))
    torch.testing.assert_close(Palette(levels, preprocessing)(shuffled), palettes)


def test_a_palette_stands_behind_the_statistics():
    preprocessing = lite0_preprocessing(32)
    images = preprocessing.normalise(dead_leaves(4, 32))
    with torch.no_grad():
        plain, both = (StageStatistics(lite0_network(), (0, 1), preprocessing, n) for n in (None, 8))
        both.load_state_dict(plain.state_dict() | {k: v for k, v in both.state_dict().items() if v.shape == (104,)})
        assert both.raw(images).shape == (4, 80 + 24)
        torch.testing.assert_close(both.raw(images)[:, :80], plain.raw(images))
        torch.testing.assert_close(both.raw(images)[:, 80:], Palette(8, preprocessing)(images))


def test_weights_in_half_precision_describe_as_whole_ones_do():
    encoder = csd_lite0(weights="random", image_size=32)
    images = encoder.preprocessing.normalise(dead_leaves(4, 32))
    with torch.no_grad():
        whole, half = encoder(images), encoder.to(torch.bfloat16)(images.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (whole * half.float()).sum(1).min() > 0.98


def test_a_palette_of_one_level_is_refused():
    with pytest.raises(StylesimError, match="palette of 1 levels a channel tells nothing apart"):
        csd_lite0(weights="random", palette=1, image_size=32)


def test_dead_leaves_are_the_same_every_time_and_differ_among_themselves():
    pictures = dead_leaves(5, 32)
    assert torch.equal(pictures, dead_leaves(5, 32))
    assert 0 <= pictures.min() <= pictures.max() <= 1
    assert len(pictures.flatten(1).unique(dim=0)) == 5


@pytest.mark.parametrize(
    ("name", "width"), [("resnet18", 2 * (64 + 64 + 128 + 256)), ("convnext_atto", 2 * (40 + 80 + 160))]
)
def test_any_timm_network_is_read_at_its_stages(name: str, width: int):
    encoder = csd_timm(name=name, weights="random", stages=True, image_size=64, dim=16)
    assert encoder.style_head.shape == (width, 16)
    assert encoder(torch.randn(2, 3, 64, 64)).isfinite().all()


def test_stages_that_a_network_does_not_have_are_refused():
    with pytest.raises(StylesimError, match=r"cannot be read at stages \[0, 9\]"):
        csd_timm(name="resnet18", weights="random", stages=[0, 9], image_size=32)


def test_timm_says_what_it_knows_and_where_its_weights_are(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(StylesimError, match=r"no model 'resnet1x'\. Did you mean one of resnet1"):
        csd_timm(name="resnet1x", weights="random")
    with pytest.raises(StylesimError, match=r"run `hf download timm/resnet18\.\w+` and pass its file"):
        csd_timm(name="resnet18")


def test_timm_preprocessing_is_timms_own():
    import timm
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    encoder = csd_timm(name="vit_tiny_patch16_224", weights="random", dim=8)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8))
    config = resolve_data_config(timm.get_pretrained_cfg("vit_tiny_patch16_224").to_dict())  # type: ignore[union-attr]
    expected = create_transform(**config)(image)  # type: ignore[operator]
    ours = encoder.preprocessing.normalise(encoder.preprocessing(image))
    torch.testing.assert_close(ours, expected)
