"""Text files of unknown encoding."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from stylesim.core.errors import DataError
from stylesim.core.text_files import decode_text, read_text

WESTERN = "“L’été” à Céret, by Paul Cézanne — oil on canvas, señor Œuvre ½".removesuffix(" ½")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_encodings_are_recognised(encoding: str) -> None:
    assert decode_text(WESTERN.encode(encoding))[0] == WESTERN


def test_latin_1_is_recognised_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_bytes("Zoë Löwe, naïve".encode("latin-1"))
    with caplog.at_level(logging.WARNING):
        assert read_text(tmp_path / "a.txt") == "Zoë Löwe, naïve"
    assert "a.txt is not UTF-8, and is read as Windows-1252" in caplog.text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("Малевич, чёрный квадрат", "cp1251"), ("葛飾北斎", "shift-jis"), ("葛飾", "gbk"), ("Ελύτης", "cp1253")],
)
def test_other_encodings_are_refused(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n" + text.encode(encoding))
    with pytest.raises(DataError, match=r"a\.txt is not text in UTF-8 or UTF-16 \(line 2 has the byte 0x"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0\0\r", b"a\0b", b"\xff\xfe\x00"])
def test_binary_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(DataError, match="not text"):
        read_text(tmp_path / "a.txt")


def test_nothing_is_text() -> None:
    assert decode_text(b"") == ("", "utf-8")
