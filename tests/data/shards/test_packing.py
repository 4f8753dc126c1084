"""Image files become shards that hold the same images under the same tags."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import encoded_image
from image_files import ADOBE_GAMMA, ADOBE_RGB, encoded, gradient, rgb_profile
from PIL import Image

from stylesim.core.errors import StylesimError
from stylesim.core.images import decode_rgb, open_image
from stylesim.data.modules import ShardDataModule
from stylesim.data.shards.packing import PLAN, pack
from stylesim.data.shards.shard_samples import read_shards
from stylesim.data.views import TwoViews


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(10):
        file = tmp_path / "mine" / ("monet" if number % 2 else "klee") / f"a.b {number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded_image(number, 60, 40))
    return tmp_path / "mine"


def contents(root: Path) -> dict[bytes, list[str]]:
    return {item.image: item.tags for item in read_shards(root)}  # type: ignore[misc]


def test_packed_images_keep_their_bytes_and_tags(folder: Path, tmp_path: Path):
    assert pack(folder, tmp_path / "out", shard_size=4, processes=1, show=False) == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "00000.tar",
        "00001.tar",
        "00002.tar",
        "index.json",
    ]
    assert contents(tmp_path / "out") == {file.read_bytes(): [file.parent.name] for file in folder.rglob("*.jpg")}
    module = ShardDataModule(str(tmp_path / "out"), batch_size=5, workers=0, views=TwoViews(8))
    assert sum(len(batch.keys) for batch in module.train_dataloader()) == 10
    assert module.vocabulary == ["klee", "monet"]


def test_interrupted_packing_continues_and_gives_the_same_shards(folder: Path, tmp_path: Path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    pack(folder, whole, shard_size=4, processes=1, show=False)
    (folder / "klee" / "a.b 0.jpg").rename(tmp_path / "kept")
    with pytest.raises(StylesimError, match="holds something else"):
        pack(folder, whole, shard_size=4, processes=1, show=False)
    (tmp_path / "kept").rename(folder / "klee" / "a.b 0.jpg")

    with pytest.MonkeyPatch.context() as patch:
        opened = []

        def open_some(path: Path, **options: Any) -> Image.Image:
            opened.append(path)
            if len(opened) == 6:
                raise KeyboardInterrupt
            return open_image(path, **options)

        patch.setattr("stylesim.data.shards.packing.open_image", open_some)
        with pytest.raises(KeyboardInterrupt):
            pack(folder, broken, shard_size=4, processes=1, show=False)
        assert sorted(path.name for path in broken.iterdir()) == ["00000.tar", PLAN]
        pack(folder, broken, shard_size=4, processes=1, show=False)
        assert len(opened) == 6 + 6
    for file in whole.iterdir():
        assert file.read_bytes() == (broken / file.name).read_bytes()


def test_large_images_are_scaled_down_and_other_formats_become_png(tmp_path: Path):
    (tmp_path / "mine" / "x").mkdir(parents=True)
    Image.new("RGB", (300, 200), "red").save(tmp_path / "mine" / "x" / "large.png")
    Image.new("RGB", (30, 20), "red").save(tmp_path / "mine" / "x" / "small.bmp")
    pack(tmp_path / "mine", tmp_path / "out", max_size=100, processes=1, show=False)
    sizes = {open_image(image).size for image in contents(tmp_path / "out")}
    assert sizes == {(150, 100), (30, 20)}


def test_damaged_images_are_left_out_and_named(folder: Path, tmp_path: Path):
    (folder / "klee" / "bad.jpg").write_bytes(b"no image")
    damaged = pack(folder, tmp_path / "out", processes=1, tags=["mon*"], suffix=".tar.gz", show=False)
    assert [name for name, _ in damaged] == ["mine/klee/bad.jpg"]
    tags = contents(tmp_path / "out").values()
    assert sorted(map(str, tags)) == ["['monet']"] * 5 + ["[]"] * 5
    assert json.loads((tmp_path / "out" / "index.json").read_text())["tags"] == {"monet": 5}


def test_several_processes_make_the_same_shards(folder: Path, tmp_path: Path):
    pack(folder, tmp_path / "one", shard_size=5, processes=1, show=False)
    pack(folder, tmp_path / "two", shard_size=5, processes=2, show=False)
    assert [file.read_bytes() for file in sorted((tmp_path / "one").iterdir())] == [
        file.read_bytes() for file in sorted((tmp_path / "two").iterdir())
    ]


def test_packing_without_any_tag_says_so(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    pack(folder, tmp_path / "a", processes=1, show=False)
    assert "has a tag" not in caplog.text
    pack(folder, tmp_path / "b", processes=1, tags=["artist:*"], show=False)
    assert f"No image in {tmp_path / 'b'} has a tag" in caplog.text
    assert "of which tags=artist:* are kept" in caplog.text
    pack(folder / "klee", tmp_path / "c", processes=1, show=False)
    assert "labels are the sub-folders of a folder, or a column such as tags of a table." in caplog.text


def packed_images(shards: Path) -> dict[str, bytes]:
    """Return the images of the only shard by their names, without the positions in front of them."""
    with tarfile.open(shards / "00000.tar") as archive:
        files = {member.name.partition("_")[2]: archive.extractfile(member) for member in archive}
        return {name: file.read() for name, file in files.items() if file and not name.endswith(".json")}


def test_the_content_of_a_file_tells_what_it_is_packed_as(tmp_path: Path):
    folder = tmp_path / "mine" / "x"
    folder.mkdir(parents=True)
    files = {"a.jfif": encoded(gradient(), "JPEG"), "b.png": encoded(gradient(), "JPEG"), "c.jpg": encoded(gradient())}
    files |= {"d.bin": encoded(gradient()), "e.ppm": encoded(gradient(), "PPM")}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    pack(tmp_path / "mine", tmp_path / "out", processes=1, show=False)
    packed = packed_images(tmp_path / "out")
    assert np.array_equal(decode_rgb(packed.pop("e.png")), gradient())
    assert packed == {
        "a.jpg": files["a.jfif"],
        "b.jpg": files["b.png"],
        "c.png": files["c.jpg"],
        "d.png": files["d.bin"],
    }


@pytest.mark.parametrize("colour", ["srgb", "raw"])
def test_a_profile_is_converted_or_dropped_where_an_image_is_converted(tmp_path: Path, colour: Any):
    profile = rgb_profile(ADOBE_RGB, ADOBE_GAMMA)
    folder = tmp_path / "mine" / "x"
    folder.mkdir(parents=True)
    for name, kind in (("a.tiff", "TIFF"), ("b.png", "PNG")):
        (folder / name).write_bytes(encoded(gradient(), kind, icc_profile=profile))
    pack(tmp_path / "mine", tmp_path / "out", colour=colour, processes=1, show=False)
    packed = packed_images(tmp_path / "out")
    expected = decode_rgb((folder / "a.tiff").read_bytes(), colour=colour)
    assert np.array_equal(decode_rgb(packed["a.png"]), expected)
    assert packed["b.png"] == (folder / "b.png").read_bytes()  # it keeps its profile


def test_damaged_images_are_packed_only_if_that_is_asked_for(tmp_path: Path):
    folder = tmp_path / "mine" / "x"
    folder.mkdir(parents=True)
    data = encoded(gradient(300, 400), "JPEG")
    (folder / "good.jpg").write_bytes(data)
    (folder / "half.jpg").write_bytes(data[:-500] + b"\xff\xd9")
    [(name, reason)] = pack(tmp_path / "mine", tmp_path / "strict", processes=1, show=False)
    assert (name, "JPEG is damaged" in reason) == ("mine/x/half.jpg", True)
    assert pack(tmp_path / "mine", tmp_path / "tolerant", accept_damaged=True, processes=1, show=False) == []
    half = packed_images(tmp_path / "tolerant")["half.png"]
    assert np.array_equal(decode_rgb(half), decode_rgb((folder / "half.jpg").read_bytes(), accept_damaged=True))
