"""The copy check with a stand-in encoder (see `stand_in_copy_encoder`) and copies that the test plants."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pytest
from PIL import Image
from stand_in_copy_encoder import ThumbnailCorrelation

from stylesim.core.errors import ConfigError
from stylesim.core.images import ImageLike
from stylesim.data.sample import Sample
from stylesim.evaluation.embed import embed
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.copies.copy_check import CopyCheck, check_copies, percentiles
from stylesim.scoring.copies.image_tiles import TILES, cut_tiles
from stylesim.scoring.copies.joint_reading import NOT_LEGAL, read_together

SIDE = 128


def noise(seed: int, side: int = SIDE) -> Image.Image:
    """A made-up encoded_image: smooth noise, unlike any other."""
    grid = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)


WORKS: dict[str, ImageLike] = {f"g/{number}.png": noise(number) for number in range(40)}


def pasted() -> Image.Image:
    larger = noise(902, 4 * SIDE)
    larger.paste(noise(4), (2 * SIDE, SIDE))
    return larger


def half_page() -> Image.Image:
    page = noise(903).resize((2 * SIDE, SIDE))
    page.paste(noise(5), (0, 0))
    return page


PLANTED: dict[str, ImageLike] = {
    "q/whole.png": noise(3).resize((90, 90)),
    "q/pasted.png": pasted(),
    "q/half.png": half_page(),
    "q/cropped.png": noise(6).crop((SIDE // 2, 0, SIDE, SIDE)),
    "q/tile.png": noise(7).crop((0, SIDE // 4, SIDE // 4, SIDE // 2)).resize((SIDE, SIDE)),
    "q/none.png": noise(900),
}
SOURCES = {"whole": "g/3.png", "pasted": "g/4.png", "half": "g/5.png", "cropped": "g/6.png", "tile": "g/7.png"}


def finder(images: Mapping[str, ImageLike]):
    def find(ids: Collection[str]) -> dict[str, ImageLike]:
        return {id: images[id] for id in ids if id in images}

    return find


def embedded(images: Mapping[str, ImageLike]) -> DescriptorSet:
    samples = [Sample(id, image) for id, image in images.items()]  # type: ignore[arg-type]
    return embed(ThumbnailCorrelation(), samples, device="cpu", progress=False)


@pytest.fixture(scope="module")
def gallery() -> DescriptorSet:
    return embedded(WORKS)


@pytest.fixture(scope="module")
def check(gallery: DescriptorSet) -> CopyCheck:
    # The stand-in needs a higher threshold than SSCD: of 40 works and 20 tiles, some correlate by chance. And it does
    # not find a crop by the whole work, as SSCD does, so the tiles of all works are compared.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stylesim.scoring.copies.copy_check.CANDIDATES", len(WORKS))
        return check_copies(
            ThumbnailCorrelation(),
            list(PLANTED),
            finder(PLANTED),
            gallery,
            finder(WORKS),
            candidate=0.85,
            near_duplicate=0.95,
        )


@pytest.mark.parametrize("planted", list(SOURCES))
def test_planted_copies_are_found(check: CopyCheck, planted: str) -> None:
    row = check.rows()[f"q/{planted}.png"]
    assert row["copied"] == SOURCES[planted]
    assert row["flag"] != "none"


def test_an_image_that_copies_nothing_is_not_flagged(check: CopyCheck) -> None:
    row = check.rows()["q/none.png"]
    assert row["flag"] == "none"
    assert row["percentile"] < 1


def test_the_part_that_matches_is_named(check: CopyCheck) -> None:
    rows = check.rows()
    assert rows["q/pasted.png"]["tile"] == "row 2, column 3"
    assert rows["q/pasted.png"]["tile_of"] == "image"
    assert [rows["q/pasted.png"][edge] for edge in ("left", "top", "right", "bottom")] == [0.5, 0.25, 0.75, 0.5]
    assert (rows["q/half.png"]["tile"], rows["q/half.png"]["tile_of"]) == ("left half", "image")
    assert (rows["q/cropped.png"]["tile"], rows["q/cropped.png"]["tile_of"]) == ("right half", "work")
    assert (rows["q/tile.png"]["tile"], rows["q/tile.png"]["tile_of"]) == ("row 2, column 1", "work")
    assert rows["q/whole.png"]["similarity"] > 0.95


def test_percentiles_are_shares_of_the_gallerys_own_nearest_pairs(check: CopyCheck) -> None:
    assert len(check.gallery_pairs) == len(WORKS)
    assert len(check.tile_pairs) == 32
    assert check.rows()["q/whole.png"]["percentile"] == 1
    twins = embedded({**WORKS, **{f"h/{id}": image for id, image in WORKS.items()}})
    result = check_copies(ThumbnailCorrelation(), ["q/whole.png"], finder(PLANTED), twins, finder(WORKS))
    assert result.gallery_pairs.min() > 0.99
    assert result.rows()["q/whole.png"]["percentile"] < 1, "works of this gallery are just as similar to each other"


def test_percentiles_of_unknown_values_are_unknown() -> None:
    values = np.array([0.1, 0.5, np.nan])
    np.testing.assert_array_equal(percentiles(values, np.array([0.2, 0.4])), [0, 1, np.nan])
    assert np.isnan(percentiles(values, np.empty(0))).all()


def test_images_that_cannot_be_read_are_counted(gallery: DescriptorSet) -> None:
    images = {**PLANTED, "q/broken.png": b"nothing"}
    ids = ["q/broken.png", "q/missing.png", "q/none.png"]
    result = check_copies(ThumbnailCorrelation(), ids, finder(images), gallery, finder(WORKS))
    assert result.unread == ["q/broken.png", "q/missing.png"]
    assert result.table["query"].tolist() == ["q/none.png"]
    assert "2 images could not be read" in result.summary


def test_an_image_of_the_gallery_is_not_its_own_copy(gallery: DescriptorSet) -> None:
    result = check_copies(ThumbnailCorrelation(), ["g/3.png"], finder(WORKS), gallery, finder(WORKS))
    row = result.rows()["g/3.png"]
    assert row["match"] != "g/3.png"
    assert row["tile_match"] != "g/3.png"


def test_a_gallery_without_its_images_still_compares_wholes(gallery: DescriptorSet) -> None:
    result = check_copies(ThumbnailCorrelation(), list(PLANTED), finder(PLANTED), gallery, finder({}))
    assert result.rows()["q/whole.png"]["copied"] == "g/3.png"
    assert len(result.tile_pairs) == 0


def test_thresholds_out_of_order_are_refused(gallery: DescriptorSet) -> None:
    with pytest.raises(ConfigError, match="candidate <= near_duplicate"):
        check_copies(ThumbnailCorrelation(), [], finder({}), gallery, finder({}), candidate=0.8, near_duplicate=0.5)


def test_empty_background_and_tiny_parts_are_not_compared() -> None:
    page = Image.new("RGB", (SIDE, SIDE), "white")
    assert cut_tiles(page) == []
    page.paste(noise(1, SIDE // 4), (0, 0))
    assert {tile.name for tile, _ in cut_tiles(page)} == {"left half", "upper half", "row 1, column 1"}
    assert [tile.name for tile, _ in cut_tiles(noise(1, 40))] == [tile.name for tile in TILES[:4]]


def test_both_verdicts_are_read_together_and_neither_changes_the_other() -> None:
    assert read_together("attributed", "none").startswith("Resemblance in style")
    assert read_together("attributed", "candidate").startswith(
        "Style and copying are confounded: look at the copy first"
    )
    assert "look at the pair" in read_together("none", "near-duplicate")
    assert "not available" in read_together("attributed", None)
    assert "Neither" in read_together("ambiguous", "none")
    assert "legal" in NOT_LEGAL
