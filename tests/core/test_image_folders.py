"""The files of a folder of images, whatever lies among them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from PIL import Image

from stylesim.core.image_folders import image_files, visible_files


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def names(files: list[Path], folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in files]


def test_files_are_ordered_by_path_at_any_depth(tmp_path: Path) -> None:
    write(tmp_path, "b.jpg", "a/2.JPG", "a-b/1.png", "a/deep/3.webp", "notes.txt")
    assert names(visible_files(tmp_path), tmp_path) == ["a-b/1.png", "a/2.JPG", "a/deep/3.webp", "b.jpg", "notes.txt"]
    assert names(image_files(tmp_path), tmp_path) == ["a-b/1.png", "a/2.JPG", "a/deep/3.webp", "b.jpg"]


def test_hidden_files_system_folders_and_folders_named_like_images_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, ".x.jpg", "._x.jpg", ".DS_Store", ".cache/x.jpg", "@eaDir/x.jpg", "a/__MACOSX/x.jpg")
    write(tmp_path, "Thumbs.db", "thumbs.db", "desktop.ini", "$RECYCLE.BIN/x.jpg", "walk.gif/1.jpg")
    assert names(visible_files(tmp_path), tmp_path) == ["walk.gif/1.jpg"]


def test_links_are_followed_without_walking_in_circles(tmp_path: Path) -> None:
    write(tmp_path, "works/monet/1.jpg", "elsewhere/klee/2.jpg")
    (tmp_path / "works/klee").symlink_to(tmp_path / "elsewhere/klee")
    (tmp_path / "works/3.jpg").symlink_to(tmp_path / "elsewhere/klee/2.jpg")
    (tmp_path / "works/monet/up").symlink_to(tmp_path / "works")
    assert names(image_files(tmp_path / "works"), tmp_path / "works") == ["3.jpg", "klee/2.jpg", "monet/1.jpg"]


def test_what_cannot_be_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    write(tmp_path, "monet/1.jpg", "klee/2.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    scan = os.scandir

    def scan_all_but_one(folder: str):  # root, as which tests may run, can read every folder
        if folder.endswith("klee"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scan_all_but_one)
    with caplog.at_level(logging.WARNING):
        assert names(image_files(tmp_path), tmp_path) == ["monet/1.jpg"]
    assert f"The link {tmp_path / 'gone.jpg'} is left out" in caplog.text
    assert f"The folder {tmp_path / 'klee'} is left out, because it cannot be read: Permission denied." in caplog.text


def test_names_that_are_not_utf8_are_found(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.jpg"))).write_bytes(b"")
    assert [os.fsencode(file.name) for file in image_files(tmp_path)] == [b"\xe9.jpg"]


def test_links_that_lead_to_themselves_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "monet/1.jpg")
    (tmp_path / "klee").symlink_to(tmp_path / "klee")
    (tmp_path / "a.jpg").symlink_to(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    assert names(image_files(tmp_path), tmp_path) == ["monet/1.jpg"]
    for name in ("klee", "a.jpg", "b.jpg"):
        assert f"The link {tmp_path / name} is left out, because it cannot be read" in caplog.text


def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path, "works/monet/1.jpg", "private/2.jpg")
    (tmp_path / "works" / "monet" / "root").symlink_to("/")
    (tmp_path / "works" / "up").symlink_to(tmp_path)
    assert names(image_files(tmp_path / "works"), tmp_path / "works") == ["monet/1.jpg"]


def test_folders_that_link_to_each_other_are_walked_once_on_each_path(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    assert names(image_files(tmp_path), tmp_path) == ["a/1.jpg", "a/b/2.jpg", "b/2.jpg", "b/a/1.jpg"]


def test_content_decides_where_the_suffix_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = Image.new("RGB", (8, 8))
    for name, kind in {"a.jfif": "JPEG", "b.ppm": "PPM", "c.jp2": "JPEG2000", "d": "PNG", "e.bin": "WEBP"}.items():
        image.save(tmp_path / name, kind)
    image.save(tmp_path / "in_disguise.txt", "PNG")  # not opened: captions stand beside millions of images
    (tmp_path / "f.svg").write_text("<svg/>")
    (tmp_path / "h.heic").write_text("no plugin")
    (tmp_path / "g.jpg").write_text("damaged, which whoever opens it counts")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    assert names(image_files(tmp_path), tmp_path) == ["a.jfif", "b.ppm", "c.jp2", "d", "e.bin", "g.jpg"]
    assert (
        f"{tmp_path}: 6 images; 3 other files are left out (1 .svg, 1 .heic (pip install pillow-heif reads"
        in caplog.text
    )


def test_text_files_beside_images_are_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "a.jpg", "a.txt", "metadata.csv")
    with caplog.at_level(logging.INFO):
        image_files(tmp_path)
    assert [(record.levelname, "1 .txt, 1 .csv" in record.message) for record in caplog.records] == [("INFO", True)]
