from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import STYLES, draw
from failing_decoder import slow_or_dead
from fastapi.testclient import TestClient
from omegaconf import DictConfig

from stylesim import ingest
from stylesim.app import required_token
from stylesim.core.errors import ConfigError, CorruptSampleError
from stylesim.encoders import StyleEncoder
from stylesim.retrieval.database.style_database import StyleDatabase
from stylesim.runtime.embedding_run import load_model
from stylesim.web.image_decoder import ImageDecoder
from stylesim.web.request_guard import MAX_BODY, RateLimit
from stylesim.web.server import create_app
from stylesim.web.works import Works

HISTOGRAM = ("model=color_histogram", "model.image_size=48", "device=cpu")
PERIOD = "the artist's 1890s"


@pytest.fixture
def works(composed: Callable[..., DictConfig], tmp_path: Path) -> Iterator[Works]:
    """24 works in three styles, a third of which are of one period."""
    for style in STYLES:
        (tmp_path / "works" / style).mkdir(parents=True)
        for content in range(8):
            (tmp_path / "works" / style / f"{content}.png").write_bytes(draw(style, content))
    ids = [f"works/{style}/{content}.png" for style in STYLES for content in range(8)]
    pd.DataFrame({"id": ids, "period": [PERIOD, "1900s", "1910s"] * 8}).to_csv(tmp_path / "m.csv", index=False)
    options = (f"db={tmp_path / 'works.db'}", f"images={tmp_path / 'works'}", f"metadata={tmp_path / 'm.csv'}")
    cfg = composed(*options, *HISTOGRAM, config="ingest")
    ingest.main(cfg)
    encoder: StyleEncoder = load_model(cfg)
    with StyleDatabase.open(tmp_path / "works.db") as database:
        yield Works(database, encoder, device="cpu")


@pytest.fixture
def client(works: Works) -> Iterator[TestClient]:
    with TestClient(create_app(works, ["testserver"], limit=RateLimit(1000, 1000))) as client:
        yield client


def png(width: int, height: int) -> bytes:
    """Return a PNG of one colour without its pixels in memory."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    compressor, rows = zlib.compressobj(9), bytes(width + 1)
    pixels = b"".join(compressor.compress(rows) for _ in range(height)) + compressor.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.slow
def test_the_api_searches_filters_attributes_and_scores(client: TestClient, works: Works) -> None:
    image = {"image": ("../../etc/passwd", draw("red", 3), "image/png")}
    found = client.post("/api/search?k=5", files=image).json()
    assert [row["tags"] for row in found["neighbours"]] == [["red"]] * 5
    assert found["neighbours"][0]["id"].startswith("works/red/")
    assert found["neighbours"][0]["similarity"] == pytest.approx(1, abs=1e-4)
    assert found["median_similarity_of_works"]["common_tag"] > found["median_similarity_of_works"]["different_tags"]
    filtered = client.post("/api/search", params={"k": 24, "period": PERIOD, "tags": "blue"}, files=image).json()
    assert {(row["period"], *row["tags"]) for row in filtered["neighbours"]} == {(PERIOD, "blue")}
    assert client.post("/api/search?period=' or 1=1 --", files=image).status_code == 422
    assert client.post("/api/search?id=x", files=image).status_code == 422
    verdict = client.post("/api/attribute", files={"image": draw("red", 30)}).json()
    assert verdict["ranking"][0]["label"] == "red"
    sides = [("generated", draw("red", 40 + row)) for row in range(3)] + [("reference", draw("red", 1))]
    same = client.post("/api/score", files=sides).json()
    assert same["low"] <= same["gss"] <= same["high"]
    other = client.post("/api/score", files=[*sides[:3], ("reference", draw("blue", 1))]).json()
    assert other["gss"] < same["gss"]
    page = client.post("/parts/result", files={"image": draw("red", 3)}, data={"period": PERIOD}).text
    assert page.count("<figure>") == 8
    number = works.numbers["works/red/3.png"]
    assert client.get(f"/works/{number}/thumbnail").content.startswith(b"\xff\xd8")
    assert client.get("/works/99/thumbnail").status_code == 404
    assert {"/api/search", "/api/attribute", "/api/score", "/health"} <= client.get("/openapi.json").json()[
        "paths"
    ].keys()
    assert client.get("/health").json()["works"] == 24


@pytest.mark.slow
def test_hostile_uploads_are_refused(client: TestClient) -> None:
    whole = draw("red", 1)
    hostile = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "script": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "page": b"<!doctype html><script>alert(1)</script>",
        "archive": b"PK\x03\x04" + whole,
        "bomb": png(60_000, 60_000 // 8),
        "other format": b"GIF89a" + bytes(100),
        "noise": os.urandom(5000),
        "too large": bytes((20 << 20) + 1),
    }
    for name, data in hostile.items():
        answer = client.post("/api/search", files={"image": (f"{name}.png", data, "image/png")})
        assert 400 <= answer.status_code < 500, name
        assert answer.json()["detail"], name
    assert client.post("/api/search").status_code == 422
    assert client.post("/api/score", files=[("generated", whole)] * 33 + [("reference", whole)]).status_code == 422
    assert client.post("/api/search", content=b"", headers={"content-length": str(MAX_BODY + 1)}).status_code == 413
    part = client.post("/parts/result", files={"image": b"<script>"}, headers={"hx-request": "true"})
    assert (part.status_code, "not an image" in part.text, "<script>" in part.text) == (422, True, False)
    assert client.post("/api/search", files={"image": whole}).status_code == 200


@pytest.mark.slow
def test_foreign_hosts_and_origins_floods_and_strangers_are_refused(works: Works) -> None:
    token, image = "a-long-secret-token", {"image": draw("red", 1)}
    with TestClient(create_app(works, ["testserver"], token, RateLimit(2, 0))) as client:
        assert client.get("/", headers={"host": "evil.example"}).status_code == 421
        assert client.get("/").status_code == 401
        assert client.get("/", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/", auth=("me", token)).status_code == 200
        headers = {"authorization": f"Bearer {token}"}
        page = client.get("/", headers=headers)
        assert "default-src 'none'" in page.headers["content-security-policy"]
        foreign = {**headers, "origin": "http://evil.example"}
        assert client.post("/api/search", files=image, headers=foreign).status_code == 403
        answers = [client.post("/api/search", files=image, headers=headers).status_code for _ in range(3)]
        assert answers == [200, 200, 429]


@pytest.mark.slow
def test_a_worker_that_hangs_or_ends_is_replaced() -> None:
    decoder = ImageDecoder(workers=1, timeout=2, decode=slow_or_dead)
    try:
        for data, message in ((b"slow", "within 2 seconds"), (b"dead", "the decoder ended")):
            with pytest.raises(CorruptSampleError, match=message):
                decoder(data)
            assert decoder(b"good") == b"good"
    finally:
        decoder.close()


def test_a_public_address_needs_consent_and_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STYLESIM_TOKEN", raising=False)
    assert required_token("127.0.0.1", False) is None
    for public, message in ((False, "Add public=true"), (True, "at least 16 characters")):
        with pytest.raises(ConfigError, match=message):
            required_token("0.0.0.0", public)
    monkeypatch.setenv("STYLESIM_TOKEN", "x" * 16)
    assert required_token("0.0.0.0", True) == "x" * 16
