"""Which formats are read, and what is said of those that need a plugin."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, gradient
from PIL import Image

from stylesim.core.errors import CorruptSampleError
from stylesim.core.images import EXTENSIONS, PLUGIN_EXTENSIONS, decode_rgb, image_size, open_image
from stylesim.core.images.formats import FORMATS, plugin_for, register

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
JXL = b"\xff\x0a" + bytes(64)


def test_every_suffix_that_pil_knows_for_a_format_that_is_read_is_looked_for():
    Image.init()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert known <= set(EXTENSIONS)


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("JPEG", "a.jfif", {"quality": 95}),
        ("JPEG", "a.jpe", {"quality": 95}),
        ("PPM", "a.ppm", {}),
        ("JPEG2000", "a.jp2", {}),
        ("AVIF", "a.avif", {"quality": 95}),
        ("PNG", "a.apng", {}),
        ("PNG", "a.jpg", {}),  # the content decides
        ("TIFF", "a", {}),
    ],
)
def test_every_format_is_read_under_every_suffix(tmp_path: Path, kind: str, name: str, options: dict):
    path = tmp_path / name
    path.write_bytes(encoded(gradient(), kind, **options))
    opened = np.asarray(open_image(path)).astype(int)
    assert np.abs(opened - gradient()).max() <= (0 if kind in ("PPM", "PNG", "JPEG2000", "TIFF") else 12)
    assert image_size(path) == (64, 48)


@pytest.mark.parametrize(("data", "package"), [(HEIC, "pillow-heif"), (JXL, "pillow-jxl-plugin")])
def test_a_format_without_its_plugin_is_named_with_the_package(tmp_path: Path, monkeypatch, data: bytes, package: str):
    monkeypatch.setattr("stylesim.core.images.formats._is_installed", lambda plugin: False)
    register.cache_clear()
    with pytest.raises(CorruptSampleError, match=f"pip install {package}"):
        decode_rgb(data)
    path = tmp_path / "image.heic"
    path.write_bytes(data)
    with pytest.raises(CorruptSampleError, match=f"image.heic: .* pip install {package}"):
        image_size(path)
    register.cache_clear()


def test_suffixes_of_plugins_are_looked_for_only_where_the_plugin_is_installed():
    from importlib.util import find_spec

    installed = {"pillow-heif": find_spec("pillow_heif"), "pillow-jxl-plugin": find_spec("pillow_jxl")}
    for suffix, package in PLUGIN_EXTENSIONS.items():
        assert (suffix in EXTENSIONS) == (installed[package] is not None)


def test_an_avif_is_not_taken_for_heif():
    assert plugin_for(encoded(gradient(), "AVIF")) is None
    assert plugin_for(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(40)) is None


def test_a_plugin_that_is_installed_is_used(tmp_path: Path, monkeypatch):
    """A module in the place of the plugin, which opens a format of its own that starts like HEIF."""
    from PIL import ImageFile

    class Opener(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._size, self._mode = (4, 3), "RGB"

        def load(self):
            self.im = Image.new("RGB", self.size, (1, 2, 3)).im
            return Image.Image.load(self)

    (tmp_path / "pillow_heif.py").write_text("def register_heif_opener(): called()\n")
    monkeypatch.syspath_prepend(tmp_path)
    import pillow_heif  # type: ignore[import-not-found]

    pillow_heif.called = lambda: Image.register_open("HEIF", Opener, lambda prefix: prefix[4:8] == b"ftyp")
    register.cache_clear()
    try:
        assert decode_rgb(HEIC).tolist() == [[[1, 2, 3]] * 4] * 3
    finally:
        register.cache_clear()
        monkeypatch.delitem(__import__("sys").modules, "pillow_heif")
        Image.OPEN.pop("HEIF", None)
        Image.ID.remove("HEIF")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_open_file_is_read_from_its_start(tmp_path: Path, kind: str):
    data = encoded(gradient(), kind)
    path = tmp_path / "image"
    path.write_bytes(data)
    buffer = io.BytesIO()
    buffer.write(data)  # stands at its end
    with path.open("rb") as file:
        for source in (buffer, io.BytesIO(data), file):
            assert np.array_equal(np.asarray(open_image(source)), decode_rgb(data))
    with pytest.raises(CorruptSampleError, match="closed file"):
        open_image(file)
    with pytest.raises(CorruptSampleError, match="must be binary"):
        open_image(io.StringIO("text"))  # type: ignore[arg-type]


def test_floats_that_are_off_by_rounding_are_read_and_others_are_refused():
    values = gradient() / 255
    values[0, 0] = [1.0000001, 1 + 1e-3, -1e-7]
    assert np.asarray(open_image(values))[0, 0].tolist() == [255, 255, 0]
    assert np.array_equal(np.asarray(open_image(values))[1:], gradient()[1:])
    for bad in (1.01, -0.01):
        values[0, 0] = bad
        with pytest.raises(CorruptSampleError, match=r"must have values in \[0, 1\]"):
            open_image(values)
