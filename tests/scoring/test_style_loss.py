from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import stylesim
from stylesim.core.errors import ConfigError, DataError
from stylesim.encoders.backbones.stage_statistics import Stages
from stylesim.encoders.controls import frozen_lite0, random_vit
from stylesim.encoders.csd_encoder import CSDEncoder
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance, StyleEncoder
from stylesim.scoring.style_loss import Form, StyleLoss, style_loss

SIZE = 32


@pytest.fixture(scope="module")
def lite0() -> StyleEncoder:
    return frozen_lite0(image_size=SIZE)


def pictures(count: int, height: int = 90, width: int = 70, seed: int = 0) -> Tensor:
    """Smooth colours with some noise, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (0.9 * smooth + 0.1 * torch.rand(smooth.shape, generator=generator)).mul(255).round() / 255


def test_cosine_is_one_minus_the_score_of_encode(lite0: StyleEncoder) -> None:
    images, works = pictures(3), pictures(4, 60, 110, seed=1)
    descriptors = lite0.encode(images), lite0.encode(works)
    expected = 1 - descriptors[0] @ descriptors[1].mean(0)
    loss = StyleLoss(works, lite0)
    torch.testing.assert_close(loss(images), expected, atol=3e-3, rtol=0)  # PIL rounds to 8 bits
    torch.testing.assert_close(StyleLoss(descriptors[1], lite0)(images), loss(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(style_loss(images, works, lite0), loss(images).mean())


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(90, 70), (41, 60), (20, 32), (33, 48)])
def test_resampling_is_that_of_pil_up_to_rounding(interpolation, size: tuple[int, int]) -> None:
    if interpolation == "nearest" and size == (20, 32):
        pytest.skip("33 / 20 has ties, at which either pixel is nearest")
    preprocessing = Preprocessing(28, 33, interpolation=interpolation)
    [image] = pictures(1, *size)
    expected = preprocessing(Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy())) / 255
    torch.testing.assert_close(preprocessing.resize_tensor(image[None])[0], expected, atol=1.6 / 255, rtol=0)


def test_weights_name_the_works_that_count(lite0: StyleEncoder) -> None:
    images, works = pictures(2), pictures(3, seed=1)
    forms: tuple[Form, ...] = ("cosine", "statistics")
    for form in forms:
        torch.testing.assert_close(
            StyleLoss(works, lite0, form, weights=[0, 5, 0])(images), StyleLoss(works[1], lite0, form)(images)
        )
    mixed = StyleLoss(works[:2], lite0, weights=[1, 3])(images)
    one, two = (StyleLoss(work, lite0)(images) for work in works[:2])
    torch.testing.assert_close(mixed, 0.25 * one + 0.75 * two)


def test_csls_agrees_with_its_formula(lite0: StyleEncoder) -> None:
    x, r, pool = (lite0.encode(pictures(n, SIZE, SIZE, seed)).numpy() for seed, n in enumerate((2, 3, 12)))
    near = [np.sort(side @ pool.T, axis=1)[:, -4:].mean(1) for side in (x, r)]
    expected = (near[0][:, None] + near[1][None] - 2 * x @ r.T).mean(1)
    found = StyleLoss(torch.from_numpy(r), lite0, "csls", pool=pool, k=4)(pictures(2, SIZE, SIZE, 0))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("form", ["gram", "statistics"])
def test_feature_maps_are_compared_stage_by_stage(lite0: StyleEncoder, form) -> None:
    image, work = pictures(1, SIZE, SIZE), pictures(1, SIZE, SIZE, seed=1)
    network = lite0.get_submodule("network")
    assert isinstance(network, Stages)
    maps = [[one[0].double().flatten(1) for one in network.maps(2 * x - 1)] for x in (image, work)]
    errors = []
    for a, b in zip(*maps, strict=True):
        if form == "gram":
            a, b = (m @ m.T / m.shape[1] for m in (a, b))
        else:
            a, b = (torch.stack([m.mean(1), (m.var(1, correction=0) + 1e-6).sqrt()]) for m in (a, b))
        errors.append(((a - b) ** 2).sum() / (b**2).sum())
    found = StyleLoss(work, lite0, form)(image)
    assert found.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)
    assert StyleLoss(image, lite0, form)(image).item() == pytest.approx(0, abs=1e-9)


def test_the_gradient_is_that_of_finite_differences() -> None:
    """In float64, through resampling, cropping, normalisation and a transformer."""
    vit = random_vit(architecture="ViT-test", image_size=SIZE)
    head = torch.eye(vit.dim)
    encoder = CSDEncoder(vit.get_submodule("network"), head, None, vit.preprocessing, Provenance("test", "random"))
    encoder.double()
    works = torch.rand(2, vit.dim, dtype=torch.float64)
    forms: tuple[tuple[Form, Tensor | None], ...] = (("cosine", None), ("csls", torch.rand(5, vit.dim)))
    for form, pool in forms:
        loss = StyleLoss(works / 4, encoder, form, pool=pool, k=2)
        images = (0.2 + 0.6 * pictures(1, 40, 44).double()).requires_grad_()
        assert torch.autograd.gradcheck(loss, images, fast_mode=True)


@pytest.mark.parametrize("form", ["cosine", "gram", "statistics"])
def test_a_step_against_the_gradient_lowers_every_form(lite0: StyleEncoder, form) -> None:
    loss, images = StyleLoss(pictures(2, seed=1), lite0, form), pictures(2).requires_grad_()
    before = loss(images)
    before.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum(dim=(1, 2, 3)).min() > 0
    assert all(parameter.grad is None for parameter in lite0.parameters())
    step = 0.002 * images.grad / images.grad.abs().mean(dim=(1, 2, 3), keepdim=True)
    assert (loss((images.detach() - step).clamp(0, 1)) < before).all()


def test_bfloat16_gives_nearly_the_same_value_and_a_gradient() -> None:
    images, works = pictures(2), pictures(2, seed=1)
    expected = StyleLoss(works, frozen_lite0(image_size=SIZE))(images)
    half = frozen_lite0(image_size=SIZE).bfloat16()
    low = images.bfloat16().requires_grad_()
    found = StyleLoss(works, half)(low)
    found.sum().backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)
    assert low.grad is not None
    assert low.grad.dtype == torch.bfloat16
    assert low.grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(
            StyleLoss(works, frozen_lite0(image_size=SIZE))(images).float(), expected, atol=0.03, rtol=0
        )


def test_it_compiles_into_one_graph(lite0: StyleEncoder) -> None:
    loss, images = StyleLoss(pictures(1, seed=1), lite0, "statistics"), pictures(1)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), loss(images))


def test_a_folder_and_a_file_are_references(lite0: StyleEncoder, tmp_path: Path) -> None:
    works = pictures(2, seed=3)
    for i, work in enumerate(works):
        Image.fromarray((work * 255).byte().permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    images = pictures(1)
    torch.testing.assert_close(StyleLoss(tmp_path, lite0)(images), StyleLoss(works, lite0)(images))
    torch.testing.assert_close(StyleLoss(tmp_path / "1.png", lite0)(images), StyleLoss(works[1], lite0)(images))


def test_what_cannot_be_compared_is_refused_in_a_sentence(lite0: StyleEncoder) -> None:
    works = pictures(2, SIZE, SIZE)
    vit = random_vit(architecture="ViT-test", image_size=SIZE)
    with pytest.raises(ConfigError, match="one of cosine, csls, gram, statistics, got 'l2'"):
        StyleLoss(works, lite0, "l2")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="belongs to form='csls'"):
        StyleLoss(works, lite0, "csls")
    with pytest.raises(ConfigError, match="has none"):
        StyleLoss(works, vit, "gram")
    with pytest.raises(ConfigError, match="pass reference images"):
        StyleLoss(torch.rand(3, lite0.dim), lite0, "gram")
    with pytest.raises(DataError, match=r"the shape \[n 384\], got \[1, 5\]"):
        StyleLoss(torch.rand(5), lite0)
    with pytest.raises(DataError, match="2 numbers of at least 0"):
        StyleLoss(works, lite0, weights=[1])
    with pytest.raises(DataError, match="images / 2"):
        StyleLoss(works, lite0)(works * 2 - 1)
    with pytest.raises(DataError, match=r"\[b 3 h w\]"):
        StyleLoss(works, lite0)(works[0])
    assert stylesim.style_loss is style_loss
