"""Downloads from a server that disconnects, ignores ranges or sends a wrong file; damaged and hostile archives."""

from __future__ import annotations

import io
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from web import Server, digest_of, tar_of

from stylesim.core.errors import WeightsError
from stylesim.encoders.weights.download import download, extract_member

CONTENT = np.random.default_rng(0).bytes(3 * 2**20 + 17)


def test_interrupted_download_continues(tmp_path: Path):
    path = tmp_path / "deep" / "net.pth"
    with Server(CONTENT, most=2**20) as server:
        download(server.url, path, title="net", sha256=digest_of(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1048576-", "bytes=2097152-", "bytes=3145728-"]
    assert not path.with_name("net.pth.partial").exists()


def test_download_of_an_interrupted_process_continues(tmp_path: Path):
    path = tmp_path / "net.pth"
    path.with_name("net.pth.partial").write_bytes(CONTENT[:1000])
    with Server(CONTENT) as server:
        download(server.url, path, title="net")
    assert path.read_bytes() == CONTENT
    assert server.requests == ["bytes=1000-"]


@pytest.mark.parametrize("partial", [b"x" * 1000, CONTENT + b"more"])
def test_partial_file_with_other_content_is_discarded(partial: bytes, tmp_path: Path):
    path = tmp_path / "net.pth"
    path.with_name("net.pth.partial").write_bytes(partial)
    with Server(CONTENT, ranges=len(partial) > 1000) as server:  # 1,000 wrong bytes: the server sends the whole file
        download(server.url, path, title="net", sha256=digest_of(CONTENT))
    assert path.read_bytes() == CONTENT


def test_complete_partial_file_is_only_renamed(tmp_path: Path):
    path = tmp_path / "net.pth"
    path.with_name("net.pth.partial").write_bytes(CONTENT)
    with Server(CONTENT) as server:
        download(server.url, path, title="net", sha256=digest_of(CONTENT)[:8])
    assert path.read_bytes() == CONTENT


def test_file_with_a_wrong_digest_is_deleted(tmp_path: Path):
    path = tmp_path / "net.pth"
    with Server(b"a page of the hotel's network") as server:
        with pytest.raises(
            WeightsError, match=r"is not the published file of net: its SHA-256 is \w{64}, expected 397923af"
        ):
            download(server.url, path, title="net", sha256="397923af")
        assert list(tmp_path.glob("net.pth*")) == [tmp_path / "net.pth.lock"]
        server.content = CONTENT
        download(server.url, path, title="net", sha256=digest_of(CONTENT))
    assert path.read_bytes() == CONTENT


def test_download_fails_after_repeated_disconnections(tmp_path: Path):
    path = tmp_path / "net.pth"
    message = r"connection was closed\. 1,234 bytes of it are in .*net\.pth\.partial"
    with Server(CONTENT, end=1234) as server, pytest.raises(OSError, match=message):
        download(server.url, path, title="net")
    assert not path.exists()
    with pytest.raises(OSError, match=r"/file cannot be downloaded: .*(refused|reset)"):
        download(server.url, tmp_path / "other.pth", title="net")


def test_concurrent_downloads_fetch_the_file_once(tmp_path: Path):
    path = tmp_path / "net.pth"
    with Server(CONTENT) as server:
        threads = [
            threading.Thread(target=download, args=(server.url, path), kwargs={"title": "net"}) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize("folder", ["", "./", "weights/"])
def test_only_the_member_is_extracted(folder: str, tmp_path: Path):
    archive, path = tmp_path / "a.tar.gz", tmp_path / "out" / "clip.pth"
    archive.write_bytes(tar_of({f"{folder}mapper/other.pth": b"no", f"{folder}mapper/clip.pth": b"yes"}))
    extract_member(archive, "mapper/clip.pth", path)
    assert path.read_bytes() == b"yes"
    assert {p.name for p in tmp_path.rglob("*")} == {"a.tar.gz", "out", "clip.pth"}


@pytest.mark.parametrize(
    "name", ["../mapper/clip.pth", "/mapper/clip.pth", "weights/../../mapper/clip.pth", "xmapper/clip.pth"]
)
def test_member_outside_the_archive_folder_is_refused(name: str, tmp_path: Path):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tar_of({name: b"evil"}))
    with pytest.raises(WeightsError, match=r"has no file mapper/clip\.pth"):
        extract_member(archive, "mapper/clip.pth", tmp_path / "clip.pth")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_not_extracted(kind: bytes, tmp_path: Path):
    (tmp_path / "secret").write_text("secret")
    archive, out = tmp_path / "a.tar", io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("mapper/clip.pth")
        link.type, link.linkname = kind, str(tmp_path / "secret")
        tar.addfile(link)
    archive.write_bytes(out.getvalue())
    with pytest.raises(WeightsError, match="has no file"):
        extract_member(archive, "mapper/clip.pth", tmp_path / "clip.pth")


@pytest.mark.parametrize("keep", [0, 30, 2**20])
def test_damaged_archive_is_refused(keep: int, tmp_path: Path):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tar_of({"mapper/clip.pth": CONTENT})[:keep])
    with pytest.raises(WeightsError, match=r"archive .*a\.tar\.gz cannot be read .* delete it"):
        extract_member(archive, "mapper/clip.pth", tmp_path / "clip.pth")
    assert not (tmp_path / "clip.pth").exists()
