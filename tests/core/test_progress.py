from __future__ import annotations

import pytest

from stylesim.core import progress as module
from stylesim.core.progress import progress


def test_without_a_terminal_lines_show_amount_rate_and_remaining_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    clock = iter([0.0, 4.0, 10.0, 12.0, 21.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("embedding", 3000) as advance:
        for _ in range(4):
            advance(500)
    assert capsys.readouterr().err.splitlines() == [
        "embedding: 1,000 of 3,000 images, 100/s, 20 s left",
        "embedding: 2,000 of 3,000 images, 95/s, 10 s left",
    ]


def test_total_may_be_unknown_and_nothing_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(module, "LOG_EVERY", 0.0)
    with progress("reading", None, unit="shards") as advance:
        advance(5)
    assert "reading: 5 shards, " in capsys.readouterr().err
    with progress("reading", 5, show=False) as advance:
        advance(5)
    assert capsys.readouterr().err == ""


def test_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True)
    with progress("embedding", 4) as advance:
        advance(4)
    assert "4/4" in capsys.readouterr().err
