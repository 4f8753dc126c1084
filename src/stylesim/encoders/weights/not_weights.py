"""Recognise files that are taken for weights but are something else, such as the error page of a server."""

from __future__ import annotations

from pathlib import Path

_SIGNATURES = (
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository"),
    (b"GGUF", "it is a GGUF file of llama.cpp: use the safetensors or PyTorch file of the same model"),
    (b"\x89HDF\r\n\x1a\n", "it is an HDF5 file of Keras: use the safetensors or PyTorch file of the same model"),
    (b"\x1f\x8b", "it is compressed with gzip: unpack it"),
    (b"BZh", "it is compressed with bzip2: unpack it"),
    (b"\xfd7zXZ", "it is compressed with xz: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive: unpack it"),
)


def why_not_weights(path: Path) -> str | None:
    """Return what a file is instead of weights, and what to do; None if that cannot be told from its beginning."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        return "it is empty, 0 bytes long, so truncated: download or copy it again"
    for signature, reason in _SIGNATURES:
        if head.startswith(signature):
            return reason
    if head[257:262] == b"ustar":
        return "it is a tar archive: unpack it"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")):
        return "it is a web page, probably a server's error message or login page: download the file again"
    if text.startswith(b"{"):
        if b'"weight_map"' in text or b'"weight_map"' in path.read_bytes()[: 2**20]:
            return "it is the index of a model in several files, which is not supported: save the model as one file"
        return "it is JSON text, such as a configuration or a server's error message: name the file with the tensors"
    return None
