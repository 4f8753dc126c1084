"""The boxes of views, and their pixels."""

from __future__ import annotations

import io
import warnings
from typing import Literal

import image_files
import numpy as np
import pytest
import torch
from image_files import ADOBE_GAMMA, ADOBE_RGB, rgb_profile
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import resized_crop

from stylesim.core.errors import StylesimError
from stylesim.core.images import decode_rgb
from stylesim.data.batch import UncutBatch
from stylesim.data.views import TwoViews, View, resize, to_greyscale

RNG = np.random.default_rng(0)


def soft_image(height: int, width: int) -> np.ndarray:
    small = RNG.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("height", "width"), [(300, 400), (60, 600), (600, 60)])
def test_boxes_are_distributed_like_torchvisions_random_resized_crop(height: int, width: int):
    views = TwoViews(32)
    image = torch.zeros(3, height, width)
    torch.manual_seed(0)
    boxes = np.array([views.draw(height, width, RNG)[:4] for _ in range(3000)])
    expected = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    for column in range(4):
        quantiles = np.linspace(0.05, 0.95, 7)
        a, b = np.quantile(boxes[:, column], quantiles), np.quantile(expected[:, column], quantiles)
        assert np.abs(a - b).max() <= 0.05 * max(height, width)


@pytest.mark.parametrize(("height", "width"), [(10, 500), (500, 10), (1, 1), (1, 40)])
def test_a_box_of_any_image_lies_inside_it(height: int, width: int):
    views = TwoViews(8)
    for _ in range(100):
        view = views.draw(height, width, RNG)
        assert 0 <= view.top <= view.top + view.height <= height
        assert 0 <= view.left <= view.left + view.width <= width
        assert min(view.height, view.width) > 0
    assert views(np.zeros((height, width, 3), np.uint8), RNG).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("box", [(0, 0, 240, 320), (10, 20, 100, 130), (200, 300, 40, 20), (5, 5, 33, 90)], ids=str)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_those_of_pil_within_two_grey_levels(
    box: tuple[int, int, int, int], interpolation: Literal["bicubic", "bilinear"]
):
    image = soft_image(240, 320)
    view = TwoViews(64, interpolation=interpolation).cut(torch.from_numpy(image), View(*box, False, False, 0))
    expected = resized_crop(Image.fromarray(image), *box, [64, 64], InterpolationMode(interpolation))  # type: ignore[arg-type]
    difference = np.abs(view.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected).astype(int))
    assert difference.max() <= 2
    assert difference.mean() < 0.5


def test_flips_and_turns_move_the_corners():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, :32] = 255  # top left
    views = TwoViews(8)

    def bright_corner(mirrored: bool, upside_down: bool, turns: int) -> tuple[int, int]:
        pixels = views.cut(torch.from_numpy(image), View(0, 0, 64, 64, mirrored, upside_down, turns))[0]
        return divmod(int(torch.stack([pixels[0, 0], pixels[0, -1], pixels[-1, 0], pixels[-1, -1]]).argmax()), 2)

    assert bright_corner(False, False, 0) == (0, 0)
    assert bright_corner(True, False, 0) == (0, 1)
    assert bright_corner(False, True, 0) == (1, 0)
    assert bright_corner(False, False, 1) == (1, 0)  # a quarter to the left


def test_flips_and_turns_have_the_given_probabilities():
    drawn = [TwoViews(8).draw(64, 64, RNG) for _ in range(2000)]
    assert np.mean([view.mirrored for view in drawn]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([view.upside_down for view in drawn]) == pytest.approx(0.3, abs=0.06)
    assert {view.turns for view in drawn} == {0, 1, 2, 3}
    assert {TwoViews(8, quarter_turns=False).draw(64, 64, RNG).turns for _ in range(50)} == {0}


def test_colours_are_not_changed():
    colour = np.array([200, 30, 90], np.uint8)
    views = TwoViews(16)(np.broadcast_to(colour, (50, 70, 3)).copy(), RNG)
    assert (views == torch.from_numpy(colour)[None, :, None, None]).all()


def test_a_share_of_the_images_loses_its_colour_in_both_views_as_in_pil():
    image = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    grey = to_greyscale(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    assert np.array_equal(grey, np.asarray(Image.fromarray(image).convert("L").convert("RGB")))

    views = TwoViews(8, greyscale=0.3)
    pairs = [views(image, RNG) for _ in range(400)]
    both = [[bool((view[0] == view[1]).all() and (view[0] == view[2]).all()) for view in pair] for pair in pairs]
    assert all(first == second for first, second in both)
    assert 80 <= sum(first for first, _ in both) <= 160
    plain, none = (TwoViews(8, greyscale=share) for share in (0.0, 1e-12))
    assert torch.equal(*(kind(image, np.random.default_rng(1)) for kind in (plain, none)))


@pytest.mark.parametrize("apart", [False, True])
def test_a_share_of_the_images_is_recoloured_once_for_both_views_or_for_each(apart: bool):
    image = np.broadcast_to(np.array([200, 30, 90], np.uint8), (20, 20, 3)).copy()
    views = TwoViews(4, recolour=0.3, recolour_apart=apart)
    pairs = [[tuple(view[:, 0, 0].tolist()) for view in views(image, RNG)] for _ in range(400)]
    changed = [(first, second) for first, second in pairs if (first, second) != ((200, 30, 90),) * 2]
    assert 80 <= len(changed) <= 160
    assert len(set(changed)) > 70
    assert all((first == second) != apart for first, second in changed)
    plain, none = (TwoViews(8, recolour=share) for share in (0.0, 1e-12))
    assert torch.equal(*(kind(image, np.random.default_rng(1)) for kind in (plain, none)))


def test_views_that_are_cut_on_the_device_are_recoloured_too():
    views = TwoViews(16, recolour=1.0, recolour_apart=True)
    drawn = [views.draw_of_file(encoded(soft_image(40, 30), "PNG"), np.random.default_rng(seed)) for seed in (0, 1)]
    batch = UncutBatch.of(drawn, torch.zeros(2, 0, dtype=torch.bool), ["a", "b"], [])
    assert torch.equal(batch.cut(views).views, torch.stack([views.cut_both(one) for one in drawn], 1))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_resize_of_a_gpu_is_that_of_a_cpu_within_one_grey_level(interpolation: Literal["bicubic", "bilinear"]):
    noise = RNG.integers(0, 2, (150, 220, 3), dtype=np.uint8) * 255  # where a bicubic kernel overshoots most
    for image in (noise, soft_image(240, 320), noise[:40, :30]):
        views = TwoViews(64, interpolation=interpolation)
        pixels = torch.from_numpy(image.copy())
        expected = views.cut(pixels, View(0, 0, image.shape[0], image.shape[1], False, False, 0)).int()
        resized = resize(pixels.permute(2, 0, 1)[None], 64, interpolation).int()
        assert (expected - resized).abs().max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_whole_images_for_the_device_are_no_larger_than_their_views_need(kind: str):
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8))
    data = encoded(np.asarray(coarse.resize((1400, 1000), Image.Resampling.BICUBIC)), kind)
    whole, late = (TwoViews(32, scale=(0.3, 1.0), on_device=on_device) for on_device in (False, True))
    for seed in range(5):
        plain, small = (views.draw_of_file(data, np.random.default_rng(seed)) for views in (whole, late))
        assert plain.pixels.shape == (1000, 1400, 3)
        assert min(min(view.height, view.width) for view in small.views) >= 32
        assert small.pixels.shape[0] * small.pixels.shape[1] < 1000 * 1400 / 36
        views, expected = late.cut_both(small).int(), whole.cut_both(plain).int()
        difference = (views - expected).abs().float().mean()
        assert difference < 3, "the same boxes, to half a pixel of the view, and the same flips"
        assert (views - expected.flip(3)).abs().float().mean() > 3 * difference


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_views_of_a_file_are_made_without_a_warning(kind: str):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of_file(TwoViews(8), encoded(soft_image(40, 40), kind), 0)


def of_file(views: TwoViews, data: bytes, seed: int) -> torch.Tensor:
    return views.cut_both(views.draw_of_file(data, np.random.default_rng(seed)))


def encoded(image: np.ndarray, kind: str = "JPEG", orientation: int = 1) -> bytes:
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(out, kind, quality=95, exif=exif)
    return out.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize(("height", "width"), [(800, 1000), (1304, 904)])
def test_a_reduced_jpeg_gives_nearly_the_pixels_of_the_whole_one(height: int, width: int, orientation: int):
    softer = Image.fromarray(soft_image(height // 8, width // 8)).resize((width, height), Image.Resampling.BICUBIC)
    data = encoded(np.asarray(softer), orientation=orientation)
    shown = width / height if orientation < 5 else height / width
    whole, reduced = (TwoViews(96, (1, 1), (shown, shown), reduced=reduced) for reduced in (False, True))
    for seed in range(3):
        exact, fast = (of_file(views, data, seed).int() for views in (whole, reduced))
        assert 0 < (exact - fast).abs().float().mean() < 1


def test_a_box_of_a_reduced_jpeg_keeps_its_position_within_half_a_pixel():
    views = TwoViews(100)
    for _ in range(100):
        view, scale = views.draw(1000, 1500, RNG), int(RNG.choice([2, 4, 8]))
        top, left, height, width, *turned = view.at(scale)
        edges = np.array([top, left, top + height, left + width])
        exact = np.array([view.top, view.left, view.top + view.height, view.left + view.width]) / scale
        assert np.abs(edges - exact).max() <= 0.5
        assert turned == list(view[4:])


@pytest.mark.parametrize(
    ("side", "kind", "scale"),
    [(384, "JPEG", (0.08, 1.0)), (1000, "JPEG", (0.08, 0.1)), (1000, "WEBP", (0.5, 1.0))],
    ids=["crops of 384 px", "small crops", "no JPEG"],
)
def test_nothing_is_reduced_where_crops_would_be_smaller_than_views_or_the_file_is_no_jpeg(
    side: int, kind: str, scale: tuple[float, float]
):
    data = encoded(soft_image(side, side), kind)
    whole, reduced = (TwoViews(224, scale=scale, reduced=reduced) for reduced in (False, True))
    assert torch.equal(*(of_file(views, data, 3) for views in (whole, reduced)))


def test_damaged_files_are_refused_with_and_without_reduction():
    data = encoded(soft_image(400, 400))[:2000]
    for reduced in (False, True):
        with pytest.raises(StylesimError):
            TwoViews(32, reduced=reduced).draw_of_file(data, RNG)
        with pytest.raises(StylesimError, match="more than the 100"):
            TwoViews(32, reduced=reduced).draw_of_file(encoded(soft_image(40, 40)), RNG, max_pixels=100)


def test_views_convert_colour_profiles_or_ignore_them():
    profile = rgb_profile(ADOBE_RGB, ADOBE_GAMMA)
    data = image_files.encoded(soft_image(64, 64), "PNG", icc_profile=profile)
    for colour in ("srgb", "raw"):
        image = TwoViews(32, colour=colour).draw_of_file(data, np.random.default_rng(0))
        assert np.array_equal(image.pixels.numpy(), decode_rgb(data, colour=colour))
    assert not np.array_equal(decode_rgb(data), decode_rgb(data, colour="raw"))


@pytest.mark.parametrize("options", [{}, {"reduced": True}, {"on_device": True}])
def test_damaged_files_are_used_if_that_is_asked_for(options: dict):
    data = encoded(soft_image(200, 200))
    half = data[: len(data) // 2] + b"\xff\xd9"
    rng = np.random.default_rng(0)
    with pytest.raises(StylesimError, match="damaged"):
        TwoViews(32, **options).draw_of_file(half, rng)
    drawn = TwoViews(32, accept_damaged=True, **options).draw_of_file(half, rng)
    assert drawn.pixels.shape[2] == 3
