"""The files of a folder of images, whatever lies among them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

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
    write(tmp_path, ".x.jpg", ".cache/x.jpg", "@eaDir/x.jpg", "a/__MACOSX/x.jpg", "Thumbs.db", "walk.gif/1.jpg")
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
