from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from browser import chromium
from conftest import STYLES, draw
from playwright.sync_api import expect

OPEN_WITH = """async kind => {
  const data = await (await fetch('/works/0/thumbnail')).blob(), transfer = new DataTransfer();
  transfer.items.add(new File([data], 'work.jpg', {type: 'image/jpeg'}));
  document.querySelector('#result').replaceChildren();
  const options = {bubbles: true, cancelable: true};
  document.dispatchEvent(kind == 'drop' ? new DragEvent('drop', {...options, dataTransfer: transfer})
    : new ClipboardEvent('paste', {...options, clipboardData: transfer}));
}"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Run the command on 24 works as a process of its own, which ends by Ctrl-C without an error."""
    for style in STYLES:
        (tmp_path / "works" / style).mkdir(parents=True)
        for content in range(8):
            (tmp_path / "works" / style / f"{content}.png").write_bytes(draw(style, content))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"gallery={tmp_path / 'works'}", f"port={port}", f"hydra.run.dir={tmp_path / 'run'}"]
    model = ["model=color_histogram", "model.image_size=48", "device=cpu"]
    server = subprocess.Popen([sys.executable, "-m", "stylesim.app", *options, *model])
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert server.poll() is None
            try:
                httpx.get(f"{address}/health").raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield address
    finally:
        server.send_signal(signal.SIGINT)
        try:
            assert server.wait(timeout=60) == 0
        finally:
            server.kill()


@pytest.mark.slow
def test_a_browser_searches_filters_compares_and_shows_errors(address: str) -> None:
    with chromium() as browser:
        for width in (1280, 390):
            page = browser.new_page(viewport={"width": width, "height": 800})
            problems: list[Any] = []
            page.on("pageerror", lambda error, problems=problems: problems.append(error))
            page.goto(address)
            image, works = page.get_by_label("Drop an image here"), page.locator("#result figure")
            image.set_input_files(cast(Any, {"name": "x.png", "mimeType": "image/png", "buffer": draw("red", 3)}))
            expect(works).to_have_count(12)
            expect(page.locator("#result .ranking li").first).to_contain_text("red")
            page.get_by_label("tags").select_option("blue")
            expect(works).to_have_count(8)
            image.set_input_files(cast(Any, {"name": "x.png", "mimeType": "image/png", "buffer": b"<script>"}))
            expect(page.get_by_role("alert")).to_contain_text("not an image")
            for kind in ("drop", "paste"):
                page.evaluate(OPEN_WITH, kind)
                expect(works).to_have_count(8)
            for label, style in (("Generated images", "red"), ("Reference works", "blue")):
                files = [
                    {"name": f"{row}.png", "mimeType": "image/png", "buffer": draw(style, row)} for row in range(3)
                ]
                page.get_by_label(label).set_input_files(cast(Any, files))
            page.get_by_role("button", name="Compare").focus()
            page.keyboard.press("Enter")
            expect(page.locator("#comparison .verdict")).to_contain_text("GSS 0.")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert not problems
            page.close()
