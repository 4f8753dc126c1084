"""Render Jinja2 templates, escaped by default, into one self-contained HTML page."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from stylesim.core.files import write_text


@dataclass(frozen=True)
class Section:
    """A titled part of a page.

    Attributes:
        title: Plain text, from which the anchor for the navigation is made.
        body: HTML, as `render` returns it.
        folded: Whether the section is closed until the reader opens it.
    """

    title: str
    body: Markup
    folded: bool = False

    @property
    def anchor(self) -> str:
        """The title as an HTML id: lower-case words joined by hyphens."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def render(template: str, **values: Any) -> Markup:
    """Render a template of this package, escaping every value that is not `Markup`.

    Args:
        template: File name in `templates/`, without `.jinja`.
        values: The variables of the template. A missing variable is an error.

    Returns:
        The HTML, which later templates do not escape again.
    """
    return Markup(_environment().get_template(f"{template}.jinja").render(values))


def write_page(path: Path | str, title: str, sections: Sequence[Section], *, summary: str = "") -> Path:
    """Write one HTML file that needs no network and no other file, and can be read without scripts.

    Args:
        path: The file, which is written atomically.
        title: Plain text for the heading and the browser tab.
        sections: Parts of the page, in order.
        summary: Plain text: the result in a few sentences. Line breaks are kept.

    Returns:
        The path of the file.
    """
    write_text(path, render("page.html", title=title, summary=summary, sections=sections))
    return Path(path)


def image_uri(image: Image.Image, *, quality: int = 82) -> str:
    """Return an image as a WebP data URI, with a quality from 0 to 100."""
    file = BytesIO()
    image.save(file, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def format_number(value: float, spec: str = ".3f") -> str:
    """Format a number for a page, with a typographic minus sign."""
    return format(value, spec).replace("-", "−")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("stylesim.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"image_uri": image_uri, "format_number": format_number}
    return environment
