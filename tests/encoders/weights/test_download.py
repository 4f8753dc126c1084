"""Downloads from a real server that breaks off, forgets ranges and sends the wrong file; archives that lie."""

from __future__ import annotations

import io
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from web import Server, digest_of, tar_of

from stylesim.core.errors import StylesimError
from stylesim.encoders.weights.download import download, extract_member

CONTENT = np.random.default_rng(0).bytes(3 * 2**20 + 17)


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path):
    path = tmp_path / "deep" / "net.pth"
    with Server(CONTENT, most=2**20) as server:
        download(server.url, path, title="net", sha256=digest_of(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1048576-", "bytes=2097152-", "bytes=3145728-"]
    assert not path.with_name("net.pth.partial").exists()


def test_another_process_goes_on_with_what_an_interrupted_one_left(tmp_path: Path):
    path = tmp_path / "net.pth"
    path.with_name("net.pth.partial").write_bytes(CONTENT[:1000])
    with Server(CONTENT) as server:
        download(server.url, path, title="net")
    assert path.read_bytes() == CONTENT
    assert server.requests == ["bytes=1000-"]


@pytest.mark.parametrize("left", [b"x" * 1000, CONTENT + b"more"])
def test_what_is_no_beginning_of_the_file_is_thrown_away(left: bytes, tmp_path: Path):
    path = tmp_path / "net.pth"
    path.with_name("net.pth.partial").write_bytes(left)
    with Server(CONTENT, ranges=len(left) > 1000) as server:  # 1,000 foreign bytes: the server sends all anew
        download(server.url, path, title="net", sha256=digest_of(CONTENT))
    assert path.read_bytes() == CONTENT


def test_a_whole_partial_file_needs_no_more_bytes(tmp_path: Path):
    path = tmp_path / "net.pth"
    path.with_name("net.pth.partial").write_bytes(CONTENT)
    with Server(CONTENT) as server:
        download(server.url, path, title="net", sha256=digest_of(CONTENT)[:8])
    assert path.read_bytes() == CONTENT


def test_a_wrong_file_never_gets_into_place(tmp_path: Path):
    path = tmp_path / "net.pth"
    with Server(b"a page of the hotel's network") as server:
        with pytest.raises(
            StylesimError, match=r"is not the published file of net: its sha256 is \w{64}, not 397923af"
        ):
            download(server.url, path, title="net", sha256="397923af")
        assert list(tmp_path.glob("net.pth*")) == [tmp_path / "net.pth.lock"]
        server.content = CONTENT
        download(server.url, path, title="net", sha256=digest_of(CONTENT))
    assert path.read_bytes() == CONTENT


def test_a_server_that_gives_no_more_is_given_up(tmp_path: Path):
    path = tmp_path / "net.pth"
    kept = r"connection was closed\. 1,234 bytes of it wait in .*net\.pth\.partial"
    with Server(CONTENT, end=1234) as server, pytest.raises(OSError, match=kept):
        download(server.url, path, title="net")
    assert not path.exists()
    with pytest.raises(OSError, match=r"/file cannot be downloaded: .*(refused|reset)"):
        download(server.url, tmp_path / "other.pth", title="net")


def test_processes_that_want_one_file_fetch_it_once(tmp_path: Path):
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
def test_a_member_comes_out_and_nothing_else(folder: str, tmp_path: Path):
    archive, path = tmp_path / "a.tar.gz", tmp_path / "out" / "clip.pth"
    archive.write_bytes(tar_of({f"{folder}mapper/other.pth": b"no", f"{folder}mapper/clip.pth": b"yes"}))
    extract_member(archive, "mapper/clip.pth", path)
    assert path.read_bytes() == b"yes"
    assert {p.name for p in tmp_path.rglob("*")} == {"a.tar.gz", "out", "clip.pth"}


@pytest.mark.parametrize(
    "name", ["../mapper/clip.pth", "/mapper/clip.pth", "weights/../../mapper/clip.pth", "xmapper/clip.pth"]
)
def test_a_member_outside_its_folder_is_refused(name: str, tmp_path: Path):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tar_of({name: b"evil"}))
    with pytest.raises(StylesimError, match=r"holds no file mapper/clip\.pth"):
        extract_member(archive, "mapper/clip.pth", tmp_path / "clip.pth")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_is_no_member(kind: bytes, tmp_path: Path):
    (tmp_path / "secret").write_text("secret")
    archive, out = tmp_path / "a.tar", io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("mapper/clip.pth")
        link.type, link.linkname = kind, str(tmp_path / "secret")
        tar.addfile(link)
    archive.write_bytes(out.getvalue())
    with pytest.raises(StylesimError, match="holds no file"):
        extract_member(archive, "mapper/clip.pth", tmp_path / "clip.pth")


@pytest.mark.parametrize("keep", [0, 30, 2**20])
def test_a_damaged_archive_is_refused(keep: int, tmp_path: Path):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tar_of({"mapper/clip.pth": CONTENT})[:keep])
    with pytest.raises(StylesimError, match=r"archive .*a\.tar\.gz cannot be read .* delete it"):
        extract_member(archive, "mapper/clip.pth", tmp_path / "clip.pth")
    assert not (tmp_path / "clip.pth").exists()
