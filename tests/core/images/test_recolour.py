"""Random colours: what they change and what they keep."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stylesim.core.images.recolour import TO_YIQ, Recolouring, change_colours, recolour

RNG = np.random.default_rng(0)
PLAIN = Recolouring(0.0, 1.0, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))


def image(*, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, 20, 30), dtype=np.uint8))


@given(st.text(max_size=20))
def test_white_stays_white_and_a_key_gives_one_recolouring(key: str):
    drawn = Recolouring.of_key(key)
    assert drawn == Recolouring.of_key(key) != Recolouring.of_key(key + "x")
    white = torch.full((3, 4, 5), 255, dtype=torch.uint8)
    assert torch.equal(recolour(white, drawn), white)


def test_the_definition_written_again():
    drawn = Recolouring.of_key("a")
    value = image()[:, 3, 4].numpy() / 255
    y, i, q = TO_YIQ @ value
    chroma = (i + 1j * q) * drawn.saturation * np.exp(1j * drawn.hue)
    turned = np.linalg.solve(TO_YIQ, [y, chroma.real, chroma.imag])
    expected = 1 - np.clip(1 - turned, 0, 1) ** drawn.exponents * drawn.inks
    assert recolour(image(), drawn)[:, 3, 4].numpy() == pytest.approx(255 * expected, abs=0.51)


def test_a_recolouring_that_changes_nothing():
    assert torch.equal(recolour(image(), PLAIN), image())


def test_draws_stay_in_their_ranges_and_reach_their_ends():
    drawn = [Recolouring.draw(RNG) for _ in range(2000)]
    for values, low, high in (
        ([d.hue for d in drawn], 0, 2 * math.pi),
        ([d.saturation for d in drawn], 0.5, 1.5),
        ([math.log(e) for d in drawn for e in d.exponents], -0.7, 0.7),
        ([i for d in drawn for i in d.inks], 0.6, 1.0),
    ):
        assert low <= min(values) < low + 0.01 * (high - low)
        assert high >= max(values) > high - 0.01 * (high - low)


def test_lines_stay_and_hues_change():
    line = np.full((16, 16, 3), 255, np.uint8)
    line[:, 8] = (180, 20, 40)
    hues = []
    for key in "abcdefgh":
        changed = np.asarray(change_colours(Image.fromarray(line), key, recoloured=True))
        assert ((changed != 255).any(axis=2) == (line != 255).any(axis=2)).all()
        hues.append(colorsys.rgb_to_hsv(*changed[0, 8] / 255)[0])
    assert np.std(hues) > 0.1


def test_only_the_last_part_of_an_id_counts():
    picture = Image.fromarray(image().permute(1, 2, 0).numpy())
    first, second, other = (change_colours(picture, id, recoloured=True) for id in ("a/b/k", "c/k", "c/l"))
    assert first.tobytes() == second.tobytes() != other.tobytes()
    assert change_colours(picture, "k").tobytes() == picture.tobytes()
    grey = np.asarray(change_colours(picture, "k", greyscale=True, recoloured=True))
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey == np.asarray(first.convert("L"))[..., None]).all()
