"""A reader of HTML pages that checks their nesting and keeps what a person or a network would see."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = ("meta", "img", "wbr", "link", "br")


class HTMLReader(HTMLParser):
    """Parse a page; an element that is not closed in order is an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._open: list[str] = []
        self.links: list[str] = []
        self.titles: list[str] = []
        self.images = 0
        self.text = ""
        self.feed(page)
        assert self._open == [], "an element was not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += tag == "img"
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.titles += [value or "" for name, value in attrs if name == "title"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Shapes of an SVG close themselves."""

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
