from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import STYLES, draw
from PIL import Image

from stylesim.core.errors import DataError
from stylesim.data.datasets.folder import find_samples
from stylesim.data.sample import Sample
from stylesim.data.shards.shard_samples import read_shards
from stylesim.encoders.controls import color_histogram
from stylesim.evaluation import add_images as module
from stylesim.evaluation.add_images import add_images, open_database
from stylesim.evaluation.embed import embed


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three styles with four images each, and one that is damaged."""
    for style in STYLES:
        (tmp_path / "works" / style).mkdir(parents=True)
        for content in range(4):
            (tmp_path / "works" / style / f"{content}.png").write_bytes(draw(style, content, size=64))
    (tmp_path / "works" / "red" / "broken.jpg").write_bytes(b"\xff\xd8 not an image")
    return tmp_path / "works"


@pytest.mark.slow
def test_images_of_a_folder_are_found_again_with_their_thumbnails(images: Path, tmp_path: Path) -> None:
    encoder = color_histogram(bins=8, image_size=48)
    samples = find_samples(images)
    with open_database(tmp_path / "works.db", encoder) as database:
        done = add_images(database, encoder, samples, thumbnail=32, device="cpu", progress=False)
        assert (done.added, done.present) == (12, 0)
        assert [name for name, _ in done.damaged] == ["works/red/broken.jpg"]
        queries = embed(encoder, samples, progress=False)
        found = database.search(queries, 1, where="tags contains 'red'")
        assert {ids[0].split("/")[1] for ids in found.ids} == {"red"}
        np.testing.assert_allclose(database.search(queries, 1).similarities, 1, atol=1e-6)
        [data] = database.items(["works/blue/0.png"], ["thumbnail"])["thumbnail"]
        assert Image.open(BytesIO(data)).size == (32, 32)


def test_a_call_that_was_interrupted_continues(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = color_histogram(bins=8, image_size=48)
    samples = find_samples(images)
    monkeypatch.setattr(module, "BATCH_IMAGES", 3)
    embedded: list[str] = []

    def counted(encoder, some, **options):
        if len(embedded) >= 6:
            embedded.clear()
            raise KeyboardInterrupt
        embedded.extend(sample.id for sample in some)
        return embed(encoder, some, **options)

    monkeypatch.setattr(module, "embed", counted)
    with open_database(tmp_path / "works.db", encoder) as database, pytest.raises(KeyboardInterrupt):
        add_images(database, encoder, samples, thumbnail=0, progress=False)
    with open_database(tmp_path / "works.db", encoder) as database:
        assert 0 < len(database) < 12
        before = len(database)
        monkeypatch.setattr(
            module, "embed", lambda e, some, **o: (embedded.extend(s.id for s in some), embed(e, some, **o))[1]
        )
        done = add_images(database, encoder, samples, thumbnail=0, progress=False)
        assert (done.added, done.present) == (12 - before, before)
        assert len(set(embedded)) == 12 - before + 1  # the damaged image is tried again
        assert len(database) == 12


def test_shards_are_added_and_replaced(shards: Path, tmp_path: Path) -> None:
    encoder = color_histogram(bins=8, image_size=48)
    samples = read_shards(shards / "validation")
    with open_database(tmp_path / "works.db", encoder) as database:
        assert add_images(database, encoder, samples, progress=False).added == 18
        again = add_images(database, encoder, samples, thumbnail=0, existing="replace", progress=False)
        assert (again.added, again.present, len(database)) == (18, 0, 18)
        assert database.count("thumbnail is null") == 18


def test_damaged_images_and_repeated_ids_are_counted_not_fatal(tmp_path: Path) -> None:
    encoder = color_histogram(bins=8, image_size=48)
    samples = [Sample("a", b"broken"), Sample("b", draw("red", 1)), Sample("b", draw("blue", 1)), Sample("c", None)]
    with open_database(tmp_path / "works.db", encoder) as database:
        done = add_images(database, encoder, samples, progress=False)
        assert done.added == 1
        assert sorted(name for name, _ in done.damaged) == ["a", "b", "c"]
        assert add_images(database, encoder, samples[:1], progress=False).damaged[0][0] == "a"
        red = embed(encoder, [samples[1]], progress=False)
        assert database.search(red, 1).similarities[0, 0] == pytest.approx(1)


def test_a_database_of_another_encoder_is_refused_before_anything_is_embedded(tmp_path: Path) -> None:
    open_database(tmp_path / "works.db", color_histogram(bins=8, image_size=48)).close()
    with pytest.raises(DataError, match="of another encoder than those of the database"):
        open_database(tmp_path / "works.db", color_histogram(bins=8, image_size=32))
    with pytest.raises(DataError, match="flips True instead of False"):
        open_database(tmp_path / "works.db", color_histogram(bins=8, image_size=48), flips=True)
