"""One self-contained HTML page: no network, no scripts; for light and dark, a phone and paper."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path

from PIL import Image

from stylesim.core.files import write_text


@dataclass(frozen=True)
class Section:
    """A titled part of a report. `html` is markup: whoever makes it escapes what comes from outside."""

    title: str
    html: str
    folded: bool = False


def write_report(path: Path | str, title: str, sections: Sequence[Section], *, summary: str = "") -> Path:
    """Write the page, whole or not at all. `summary`: plain text, a sentence or two that give the result."""
    path = Path(path)
    write_text(path, page(title, sections, summary=summary))
    return path


def page(title: str, sections: Sequence[Section], *, summary: str = "") -> str:
    """The page as text."""
    names = [_anchor(section.title) for section in sections]
    links = "".join(f'<a href="#{name}">{escape(s.title)}</a>' for name, s in zip(names, sections, strict=True))
    lead = f'<p class="summary">{escape(summary)}</p>' if summary else ""
    parts = [_section(name, section) for name, section in zip(names, sections, strict=True)]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<style>\n{files('stylesim.report').joinpath('report.css').read_text()}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>{lead}<nav>{links}</nav></header>\n"
        f"<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def facts_html(facts: Mapping[str, object]) -> str:
    """Names and values, one line each: command, commit, versions, hardware."""
    lines = (f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{"".join(lines)}</dl>'


def code_html(text: str) -> str:
    """Text as it is: a composed config."""
    return f"<pre><code>{escape(text)}</code></pre>"


def damaged_html(damaged: Sequence[tuple[str, str]], *, shown: int = 200) -> str:
    """What was left out and why: the count, and the first of them by name."""
    if not damaged:
        return "<p>Every sample could be read.</p>"
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(why)}</td></tr>" for name, why in damaged[:shown])
    rest = f"<p>The first {shown:,} are listed.</p>" if len(damaged) > shown else ""
    count = "1 sample was" if len(damaged) == 1 else f"{len(damaged):,} samples were"
    return f'<p>{count} left out.</p>{rest}<div class="wide"><table class="plain">{rows}</table></div>'


def image_uri(image: Image.Image, *, quality: int = 82) -> str:
    """A picture as a WebP data URI."""
    file = BytesIO()
    image.save(file, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _section(name: str, section: Section) -> str:
    title = escape(section.title)
    if section.folded:
        return f'<details id="{name}"><summary><h2>{title}</h2></summary>{section.html}</details>\n'
    return f'<section id="{name}"><h2>{title}</h2>{section.html}</section>\n'


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
