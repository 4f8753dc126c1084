"""Queries beside what they found: the picture that tells more than a metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain, zip_longest

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from stylesim.core.errors import StylesimError
from stylesim.evaluation.evaluate_descriptors import RetrievalResult
from stylesim.evaluation.labels import label_values
from stylesim.report.html_page import image_uri

THUMBNAIL = 144
RIGHT, WRONG = (29, 138, 78), (200, 55, 45)


@dataclass(frozen=True)
class ShownImage:
    """One image. `right` and `similarity` are None for a query, `image` where it cannot be opened."""

    id: str
    label: str
    image: Image.Image | None
    similarity: float | None = None
    correct: bool | None = None


@dataclass(frozen=True)
class NeighbourRow:
    """A query and its neighbours, the nearest first."""

    query: ShownImage
    neighbours: list[ShownImage]


def neighbour_rows(
    retrieval: RetrievalResult,
    open_item: Callable[[str], Image.Image],
    n_queries: int = 12,
    k: int = 10,
    seed: int = 0,
    only_failures: bool = False,
) -> list[NeighbourRow]:
    """Choose queries over all labels, a third of them failures of the first neighbour, and open their images.

    With `only_failures` there are no others, and so perhaps no rows. The choice is a function of the ids and the seed.
    `open_item` turns an id into its picture; where it raises StylesimError or OSError the place stays empty. Rows come
    in the order of their labels.
    """

    def thumbnail(name: str) -> Image.Image | None:
        try:
            return ImageOps.fit(open_item(name).convert("RGB"), (THUMBNAIL, THUMBNAIL))
        except (StylesimError, OSError):
            return None

    labels = {
        side: [_label(values) for values in label_values(items, retrieval.spec.relevant)]
        for side, items in (("query", retrieval.queries.items), ("gallery", retrieval.gallery.items))
    }
    ids = {"query": retrieval.queries.ids, "gallery": retrieval.gallery.ids}
    chosen = _choose(labels["query"], ids["query"], retrieval.relevance[:, 0], n_queries, seed, only_failures)
    rows = []
    for q in sorted(chosen, key=lambda q: (labels["query"][q], ids["query"][q])):
        indices, scores = (values[q, :k].tolist() for values in retrieval.neighbours)
        found = [
            ShownImage(ids["gallery"][g], labels["gallery"][g], thumbnail(ids["gallery"][g]), score, bool(right))
            for g, score, right in zip(indices, scores, retrieval.relevance[q, :k], strict=True)
            if g >= 0
        ]
        rows.append(NeighbourRow(ShownImage(ids["query"][q], labels["query"][q], thumbnail(ids["query"][q])), found))
    return rows


def gallery_html(rows: Sequence[NeighbourRow]) -> str:
    """The rows as metrics for a report; right and wrong are told by a colour and by a mark."""

    def one(row: NeighbourRow) -> str:
        found = "".join(_figure(work) for work in row.neighbours)
        return f'<div class="matches">{_figure(row.query)}<div class="found">{found}</div></div>'

    return "".join(one(row) for row in rows)


def draw_contact_sheet(rows: Sequence[NeighbourRow], *, cell: int = 112) -> Image.Image:
    """The rows as one picture: the query at the left, right neighbours framed green, wrong ones red."""
    gap, text = 10, 30
    columns = 1 + max((len(row.neighbours) for row in rows), default=0)
    size = (columns * (cell + gap) + 3 * gap, len(rows) * (cell + text + gap) + gap)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for r, row in enumerate(rows):
        for c, work in enumerate((row.query, *row.neighbours)):
            x, y = gap + c * (cell + gap) + (gap if c else 0), gap + r * (cell + text + gap)
            if work.correct is not None:
                draw.rectangle((x - 3, y - 3, x + cell + 2, y + cell + 2), RIGHT if work.correct else WRONG)
            if work.image:
                sheet.paste(work.image.resize((cell, cell)), (x, y))
            else:
                draw.rectangle((x, y, x + cell - 1, y + cell - 1), (225, 225, 225))
            label = work.label
            while label and draw.textlength(label, font) > cell:
                label = label[:-2].rstrip("…") + "…" if len(label) > 2 else ""
            draw.text((x, y + cell + 4), label, "black", font)
            if work.similarity is not None:
                draw.text((x, y + cell + 16), f"{work.similarity:.3f}", (100, 100, 106), font)
    return sheet


def _figure(work: ShownImage) -> str:
    kind = "" if work.correct is None else " right" if work.correct else " wrong"
    title = f'title="{escape(work.id, quote=True)}"'
    picture = f'<img alt="" src="{image_uri(work.image)}">' if work.image else '<div class="lost"></div>'
    score = "" if work.similarity is None else f'<span class="score">{work.similarity:.3f}</span>'
    caption = f"<figcaption><span>{escape(work.label)}</span>{score}</figcaption>"
    return f'<metric class="work{kind}" {title}>{picture}{caption}</metric>'


def _label(values: Sequence[str]) -> str:
    """Tags without their group: "set:noto" reads "noto"."""
    return ", ".join(value.rpartition(":")[2] for value in values[:3]) + (", …" if len(values) > 3 else "")


def _choose(
    labels: list[str], ids: list[str], first_right: np.ndarray, n: int, seed: int, only_failures: bool
) -> list[int]:
    """A third of failures where there are so many, else successes; each going round the labels in turn."""
    shuffled = np.random.default_rng(seed).permutation(sorted(range(len(ids)), key=lambda i: ids[i]))

    def in_turn(right: bool) -> list[int]:
        by_label: dict[str, list[int]] = {}
        for q in shuffled.tolist():
            if bool(first_right[q]) == right:
                by_label.setdefault(labels[q], []).append(q)
        return [q for q in chain.from_iterable(zip_longest(*by_label.values())) if q is not None]

    wrong, right = in_turn(False), [] if only_failures else in_turn(True)
    failures = max(min(len(wrong), n // 3), n - len(right))
    return (wrong[:failures] + right)[:n]
